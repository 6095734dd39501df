# shellcheck shell=sh disable=SC2034,SC2154 # the variables are those of the script that uses it
# uses: lib/server
# The lock of a session: one launch or one change of the token at a time. Uses jm_dir (the session's directory), JM_NAME, JM_TIMEOUT (seconds to wait), JM_ID and jm_undo; sets
# jm_locked.

# The lock is a directory (mkdir is atomic, on NFS too) with `owner`: time, timeout, pid, ticks, boot id, launch id.
jm_lock() {
    jm_waited=0
    until mkdir -- "$jm_dir/lock" 2>/dev/null; do
        [ -d "$jm_dir/lock" ] || [ -L "$jm_dir/lock" ] || {
            jm_safe_dir "$jm_dir"
            jm_error=$(mkdir -- "$jm_dir/lock" 2>&1) && break
            [ -d "$jm_dir/lock" ] || bail remote-failed "cannot write in $jm_dir: ${jm_error##*: }" "make room or mend its permissions on the host"
        }
        jm_stale && continue
        [ $((jm_waited % 10)) -ne 0 ] || say step "another launch of $JM_NAME is under way" || { jm_undo; exit 0; }
        [ "$jm_waited" -lt $((JM_TIMEOUT * 10)) ] ||
            bail launch-timeout "another launch of $JM_NAME is still under way after $JM_TIMEOUT s" "wait for it, or jupyman kill $JM_NAME"
        jm_nap 0.1
        jm_waited=$((jm_waited + 1))
    done
    jm_locked=1
    rm -f -- "$jm_dir/cancel"
    jm_put "$jm_dir/lock/owner" "$(date +%s) $JM_TIMEOUT $$ $(jm_start $$) $(jm_boot_id) $JM_ID" ||
        bail remote-failed "cannot write in $jm_dir: $jm_error" "make room on the host (disk full or quota?)"
}

jm_unlock() {
    rm -f -- "$jm_dir/lock/owner" "$jm_dir/lock/owner.new.$$"
    rmdir -- "$jm_dir/lock" 2>/dev/null
    jm_locked=''
}

# jm_stale: remove a lock whose owner is gone: dead, of another boot, or 60 s past its own timeout.
jm_stale() {
    jm_owner_line=$(cat "$jm_dir/lock/owner" 2>/dev/null)
    if [ -z "$jm_owner_line" ]; then
        # Just made, or its maker died in between: wait two seconds.
        [ $((jm_waited)) -ge 20 ] || return 1
    else
        # shellcheck disable=SC2086 # split into fields on purpose
        set -- $jm_owner_line
        # The shell evaluates what is in an arithmetic expression: only numbers may get there.
        case $1$2 in *[!0-9]*) set -- 0 0 ;; esac
        if [ "${5-}" = "$(jm_boot_id)" ] && jm_alive "$3" "$4" && [ "$(date +%s)" -le $(($1 + $2 + 60)) ]; then return 1; fi
    fi
    # Renaming is atomic: one of several processes gets it. What was renamed must still be what was judged.
    mv -- "$jm_dir/lock" "$jm_dir/lock.stale.$$" 2>/dev/null || return 0
    if [ "$(cat "$jm_dir/lock.stale.$$/owner" 2>/dev/null)" != "$jm_owner_line" ]; then
        mv -- "$jm_dir/lock.stale.$$" "$jm_dir/lock" 2>/dev/null
        return 1
    fi
    rm -rf -- "$jm_dir/lock.stale.$$"
}
