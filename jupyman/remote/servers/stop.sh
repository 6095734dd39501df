# shellcheck shell=sh
# uses: lib/server
# End a server with its kernels and their children. Its identity is checked here, directly before each signal.
# JM_NODE on which it was started  JM_PID JM_TICKS JM_BOOT  JM_DIRECTORY of the session, or ""
# JM_GRACE seconds  JM_FORCE 1: SIGKILL after them  JM_BY who, for the record
# JM_CANCEL 1: instead, undo the launch JM_ID of session JM_NAME, at whatever step it is
# Says: state stopped|gone|alive
main() {
    # A pid of another machine with the same home means nothing here, and its files must stay.
    [ -z "${JM_NODE-}" ] || [ "$JM_NODE" = "$(jm_node)" ] ||
        fail remote-failed "the server runs on $JM_NODE, and this login reached $(jm_node)" "log in to $JM_NODE itself: name it in ~/.ssh/config, then jupyman kill there"
    if [ "${JM_CANCEL-}" = 1 ]; then
        jm_cancel || return 0
    elif [ -n "$JM_DIRECTORY" ]; then
        # Only if the record describes this server are its files removed, too.
        jm_private "$JM_DIRECTORY/record" && [ "$(jm_get "$JM_DIRECTORY/record" pid)" = "$JM_PID" ] &&
            [ "$(jm_get "$JM_DIRECTORY/record" start_ticks)" = "$JM_TICKS" ] &&
            [ "$(jm_get "$JM_DIRECTORY/record" boot_id)" = "$JM_BOOT" ] || JM_DIRECTORY=''
    fi
    jm_runtime=''
    if [ -n "$JM_DIRECTORY" ]; then
        jm_runtime=$(jm_get "$JM_DIRECTORY/record" runtime)
        jm_runtime_ok "$jm_runtime" || jm_runtime=''
        # At first, so that no other computer restarts it meanwhile.
        jm_mark
    fi
    jm_state=gone
    if [ "$(jm_boot_id)" = "$JM_BOOT" ]; then
        ! jm_alive "$JM_PID" "$JM_TICKS" || jm_state=stopped
        if ! jm_end_server "$JM_PID" "$JM_TICKS" "$jm_runtime" "$JM_GRACE" "$JM_FORCE"; then
            jm_unmark
            say state alive
            return 0
        fi
    fi
    if [ -n "$JM_DIRECTORY" ]; then
        rm -f -- "$JM_DIRECTORY/token" "$JM_DIRECTORY"/token.old.* "$JM_DIRECTORY/cookie_secret" "$JM_DIRECTORY/jupyter_config.py" "$JM_DIRECTORY/kernel_config.py" "$JM_DIRECTORY/endpoint" "$JM_DIRECTORY/cancel"
        [ -z "$jm_runtime" ] || jm_drop_runtime "$jm_runtime"
    fi
    say state "$jm_state"
}

jm_unmarked() { sed '/^stopped_by /d' "$JM_DIRECTORY/record"; }
jm_mark() {
    umask 077
    jm_put "$JM_DIRECTORY/record" "$(jm_unmarked)
stopped_by $(date -u +%Y-%m-%dT%H:%M:%SZ) $JM_BY"
}
jm_unmark() { [ -z "$JM_DIRECTORY" ] || jm_put "$JM_DIRECTORY/record" "$(jm_unmarked)"; }

# shellcheck disable=SC2153 # JM_ID comes from jupyman
jm_under_way() { [ "$(sed 's/.* //' "$JM_DIRECTORY/lock/owner" 2>/dev/null)" = "$JM_ID" ]; }

# shellcheck disable=SC2153 # the JM_ variables come from jupyman
# jm_cancel: find launch JM_ID: still under way (ask it to end, and wait) or done (stop what it made). Status 1: neither.
jm_cancel() {
    umask 077
    JM_DIRECTORY=$(jm_root)/$JM_NAME
    jm_turn=0
    while jm_under_way; do
        # On a full disk the file stays empty; the launch still notices that its channel is closed.
        echo "$JM_ID" 2>/dev/null >"$JM_DIRECTORY/cancel"
        [ "$jm_turn" -lt 300 ] || break
        jm_nap 0.1
        jm_turn=$((jm_turn + 1))
    done
    # It was written just when the launch ended, after its last check.
    if [ "$(cat "$JM_DIRECTORY/cancel" 2>/dev/null)" = "$JM_ID" ] && ! jm_under_way; then
        rm -f -- "$JM_DIRECTORY/cancel"
        rmdir -- "$JM_DIRECTORY" 2>/dev/null
    fi
    if ! jm_private "$JM_DIRECTORY/record" || [ "$(jm_get "$JM_DIRECTORY/record" id)" != "$JM_ID" ]; then
        say state gone
        return 1
    fi
    JM_PID=$(jm_get "$JM_DIRECTORY/record" pid)
    JM_TICKS=$(jm_get "$JM_DIRECTORY/record" start_ticks)
    JM_BOOT=$(jm_get "$JM_DIRECTORY/record" boot_id)
}
