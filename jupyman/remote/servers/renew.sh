# shellcheck shell=sh disable=SC2154 # some variables come from the libraries
# uses: lib/server lib/lock
# Give a running server of ours another token without a restart, because somebody else may know the present one. Its token
# file is replaced, which the server notices at its next request (jupyter_config.py). Then it is asked from the host
# itself: it must accept the new token and refuse the old one, or the old file is restored.
# JM_NODE where it was started  JM_PID JM_TICKS JM_BOOT  JM_ENDPOINT port or UNIX socket
# JM_DIRECTORY of the session  JM_NAME session  JM_ID of this change  JM_TIMEOUT seconds to wait for a launch under way
# JM_CHECK Python program
# Says: node, state as verify.sh; renewed yes|no (no: it does not reread its token); token
main() {
    umask 077
    jm_locked=''
    jm_dir=$JM_DIRECTORY
    jm_undo() {
        trap '' HUP INT TERM PIPE
        rm -f -- "$jm_dir/token.new.$$" "$jm_dir/token.old.$$"
        [ -z "$jm_locked" ] || jm_unlock
    }
    # If the client left, a change that was made stands: the server has taken it, and the next verify.sh reports it.
    trap 'jm_undo; exit 0' HUP INT TERM PIPE
    say node "$(jm_node)"
    jm_state=$(jm_seen)
    if [ "$jm_state" = alive ]; then
        jm_safe_dir "$jm_dir"
        jm_lock
        jm_state=$(jm_seen) # again: a launch may have ended meanwhile
    fi
    if [ "$jm_state" != alive ]; then
        say state "$jm_state"
    elif [ "$(jm_get "$jm_dir/record" rereads)" != token ]; then
        say state alive
        say renewed no
    else
        jm_change
        say state alive
    fi
    jm_undo
}

# jm_seen: the state of the server, as verify.sh says it.
jm_seen() {
    if [ -n "$JM_NODE" ] && [ "$JM_NODE" != "$(jm_node)" ]; then
        echo elsewhere
    elif [ "$(jm_boot_id)" != "$JM_BOOT" ]; then
        echo rebooted
    elif ! jm_alive "$JM_PID" "$JM_TICKS" || ! jm_private "$jm_dir/record" ||
        [ "$(jm_get "$jm_dir/record" pid)" != "$JM_PID" ] || [ "$(jm_get "$jm_dir/record" start_ticks)" != "$JM_TICKS" ]; then
        echo exited
    else
        jm_serves "$JM_PID" "$JM_ENDPOINT"
        case $? in 0) echo alive ;; 1) echo not-listening ;; *) echo taken ;; esac
    fi
}

jm_change() {
    for jm_file in token cookie_secret; do jm_safe_file "$jm_dir/$jm_file"; done
    rm -f -- "$jm_dir"/token.new.* "$jm_dir"/token.old.* # of a change that was killed: nobody else has the lock
    jm_python=$(jm_get "$jm_dir/record" python)
    [ -x "$jm_python" ] || jm_python=/proc/$JM_PID/exe # its environment was removed meanwhile
    jm_error=$({
        cat "$jm_dir/token" >"$jm_dir/token.old.$$" && od -An -N24 -tx1 /dev/urandom | tr -d ' \n' >"$jm_dir/token.new.$$"
    } 2>&1) || jm_full "$jm_error"
    [ "$(wc -c <"$jm_dir/token.new.$$")" -eq 48 ] || jm_full "no room for 48 bytes"
    # The key of the cookies first: a server that starts after this moment makes a new one.
    jm_error=$({ rm -f -- "$jm_dir/cookie_secret" && mv -f -- "$jm_dir/token.new.$$" "$jm_dir/token"; } 2>&1) || jm_full "$jm_error"
    jm_asked=$(printf '%s\n' "$JM_CHECK" | within 60 "$jm_python" - renewed "$JM_ENDPOINT" "$jm_dir/token" "$jm_dir/token.old.$$" 2>/dev/null)
    case $jm_asked in
        200\ 40[13])
            say renewed yes
            # cat, not printf: if printf is not a builtin, everybody can see its arguments.
            printf 'token ' && tr -d '\r\n' <"$jm_dir/token" && echo
            return
            ;;
    esac
    # If `kill` removed it meanwhile, nothing is restored.
    [ ! -f "$jm_dir/token" ] || mv -f -- "$jm_dir/token.old.$$" "$jm_dir/token"
    case $jm_asked in
        40[13]\ 200) say renewed no ;;
        *) bail remote-failed "the server of $JM_NAME did not accept another token (with the new one and with the old one: HTTP ${jm_asked:-no answer})" "run it again; or jupyman kill $JM_NAME, then jupyman up again" ;;
    esac
}

jm_full() { bail remote-failed "cannot write in $jm_dir: ${1##*: }" "make room on the host (disk full or quota?)"; }
