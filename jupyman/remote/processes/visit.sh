# shellcheck shell=sh
# Find the sshd process of this connection, and end that of the connection before: it lost its network and would wait for
# hours. JM_PID JM_TICKS JM_BOOT of the latter, "" if there was none.
# Says: pid, ticks, boot; ended yes
main() {
    jm_mine=$PPID
    jm_n=0
    # A login shell may be between sshd and this shell.
    until jm_carries "$jm_mine"; do
        jm_mine=$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$jm_mine/status" 2>/dev/null)
        [ "${jm_mine:-1}" -gt 1 ] && [ "$jm_n" -lt 4 ] || return 0
        jm_n=$((jm_n + 1))
    done
    jm_now=$(jm_boot_id)
    say pid "$jm_mine"
    say ticks "$(jm_ticks "$jm_mine")"
    say boot "$jm_now"
    # Start time and boot id are compared, because pids are reused.
    [ -n "$JM_PID" ] && [ "$JM_PID" != "$jm_mine" ] && [ "$JM_BOOT" = "$jm_now" ] || return 0
    [ "$(jm_ticks "$JM_PID")" = "$JM_TICKS" ] && jm_carries "$JM_PID" || return 0
    kill -TERM "$JM_PID" 2>/dev/null && say ended yes
    return 0
}

# jm_carries PID: status 0 if it is a process of sshd that runs as this user.
jm_carries() {
    case $(cat "/proc/$1/comm" 2>/dev/null) in
        sshd*) [ "$(jm_owner "$1")" = "$(id -u)" ] ;;
        *) return 1 ;;
    esac
}
