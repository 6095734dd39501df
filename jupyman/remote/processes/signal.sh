# shellcheck shell=sh
# End a process that holds a port, if it is still the one that was found. JM_PID JM_TICKS JM_BOOT JM_PORT
# JM_GRACE seconds after SIGTERM, JM_FORCE 1: then SIGKILL. Says: state gone|alive|changed|foreign
main() {
    jm_same || return 0
    if ! jm_listens; then
        say state changed
        return 0
    fi
    kill -TERM "$JM_PID" 2>/dev/null
    # A stopped process (Ctrl-Z) receives its SIGTERM only when it continues.
    kill -CONT "$JM_PID" 2>/dev/null
    if jm_ended "$JM_GRACE"; then return 0; fi
    if [ "$JM_FORCE" = 1 ]; then
        # It was proven to be the right one; meanwhile it may have closed its socket, and hang.
        jm_same || return 0
        kill -KILL "$JM_PID" 2>/dev/null
        if jm_ended 5; then return 0; fi
    fi
    say state alive
}

# Uid, start time and boot id are compared, because pids are reused.
jm_same() {
    if ! jm_now=$(jm_ticks "$JM_PID"); then
        say state gone
    elif [ "$jm_now" != "$JM_TICKS" ] || [ "$(jm_boot_id)" != "$JM_BOOT" ]; then
        say state changed
    elif [ "$(jm_owner "$JM_PID")" != "$(id -u)" ]; then
        say state foreign
    else
        return 0
    fi
    return 1
}

# Status 0 if one of its descriptors is a socket that listens on the port.
jm_listens() {
    jm_hex=$(printf '%04X' "$JM_PORT")
    # shellcheck disable=SC2012
    jm_fds=$(ls -l "/proc/$JM_PID/fd" 2>/dev/null)
    while read -r _ jm_local _ jm_tcp _ _ _ _ _ jm_inode _; do
        case $jm_tcp:$jm_local in 0A:*:"$jm_hex") ;; *) continue ;; esac
        case $jm_fds in *"socket:[$jm_inode]"*) return 0 ;; esac
    done <<TABLE
$(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null)
TABLE
    return 1
}

# jm_ended SECONDS: wait for its end; status 0 and a fact when it has ended.
jm_ended() {
    jm_n=0
    while :; do
        jm_now=$(jm_ticks "$JM_PID") || jm_now=
        # A zombie holds no port any more.
        case $jm_now:$(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$JM_PID/status" 2>/dev/null) in
            "$JM_TICKS":[!ZX]) ;;
            *)
                say state gone
                return 0
                ;;
        esac
        [ "$jm_n" -lt $(($1 * 10)) ] || return 1
        jm_nap 0.1
        jm_n=$((jm_n + 1))
    done
}
