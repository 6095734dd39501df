# shellcheck shell=sh
# Does this very server still run, and is the port's socket its own? Asked before any token travels.
# JM_SERVER library  JM_PID JM_TICKS JM_BOOT JM_PORT  JM_DIRECTORY of the session, or ""
# Says: state alive|exited|rebooted|taken|not-listening, stopped_by, log
main() {
    eval "$JM_SERVER"
    if [ "$(jm_boot_id)" != "$JM_BOOT" ]; then
        jm_state=rebooted
    elif ! jm_alive "$JM_PID" "$JM_TICKS"; then
        jm_state=exited
    else
        jm_listens "$JM_PID" "$JM_PORT"
        case $? in 0) jm_state=alive ;; 1) jm_state=not-listening ;; *) jm_state=taken ;; esac
    fi
    say state "$jm_state"
    [ -n "$JM_DIRECTORY" ] && [ "$jm_state" != alive ] || return 0
    if jm_private "$JM_DIRECTORY/record"; then
        # A newer server of this session may have written there since.
        [ "$(jm_get "$JM_DIRECTORY/record" pid)" = "$JM_PID" ] || return 0
        say stopped_by "$(jm_get "$JM_DIRECTORY/record" stopped_by)"
    fi
    jm_tail 20 "$JM_DIRECTORY/log"
}
