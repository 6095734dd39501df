# shellcheck shell=sh
# Which process of sshd carries this connection; and the end of the one that carried the connection before: the network
# was lost under it, and it would wait for us for hours. JM_PID JM_TICKS JM_BOOT of that one, "" where there was none.
# Says: pid, ticks, boot; ended yes
main() {
    jm_mine=$PPID
    jm_n=0
    # A login shell may stand between sshd and us.
    until jm_carries "$jm_mine"; do
        jm_mine=$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$jm_mine/status" 2>/dev/null)
        [ "${jm_mine:-1}" -gt 1 ] && [ "$jm_n" -lt 4 ] || return 0
        jm_n=$((jm_n + 1))
    done
    jm_now=$(jm_boot_id)
    say pid "$jm_mine"
    say ticks "$(jm_ticks "$jm_mine")"
    say boot "$jm_now"
    # Start time and boot: pids are given to others all the time.
    [ -n "$JM_PID" ] && [ "$JM_PID" != "$jm_mine" ] && [ "$JM_BOOT" = "$jm_now" ] || return 0
    [ "$(jm_ticks "$JM_PID")" = "$JM_TICKS" ] && jm_carries "$JM_PID" || return 0
    kill -TERM "$JM_PID" 2>/dev/null && say ended yes
    return 0
}

# jm_carries PID: it is sshd's, and runs as this user.
jm_carries() {
    case $(cat "/proc/$1/comm" 2>/dev/null) in
        sshd*) [ "$(jm_owner "$1")" = "$(id -u)" ] ;;
        *) return 1 ;;
    esac
}
