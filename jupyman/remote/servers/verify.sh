# shellcheck shell=sh
# uses: lib/server
# Does this very server still run, and is the socket that it is reached by its own? Asked before any token travels.
# JM_NODE where it was started  JM_PID JM_TICKS JM_BOOT  JM_ENDPOINT port or UNIX socket  JM_DIRECTORY of the session, or ""
# Says: node, state alive|exited|rebooted|taken|not-listening|elsewhere, kernels what exposes them, token, stopped_by, oom, log
main() {
    # The login may have reached another machine with the same home: of a process over there nothing is known here.
    say node "$(jm_node)"
    if [ -n "$JM_NODE" ] && [ "$JM_NODE" != "$(jm_node)" ]; then
        say state elsewhere
        return 0
    fi
    if [ "$(jm_boot_id)" != "$JM_BOOT" ]; then
        jm_state=rebooted
    elif ! jm_alive "$JM_PID" "$JM_TICKS"; then
        jm_state=exited
    else
        jm_serves "$JM_PID" "$JM_ENDPOINT"
        case $? in 0) jm_state=alive ;; 1) jm_state=not-listening ;; *) jm_state=taken ;; esac
    fi
    say state "$jm_state"
    [ "$jm_state" != alive ] || jm_exposed "$JM_PID" | lines kernels
    [ -n "$JM_DIRECTORY" ] || return 0
    if [ "$jm_state" = alive ]; then
        jm_token
        return 0
    fi
    if jm_private "$JM_DIRECTORY/record"; then
        # A newer server of this session may have written there since.
        [ "$(jm_get "$JM_DIRECTORY/record" pid)" = "$JM_PID" ] || return 0
        say stopped_by "$(jm_get "$JM_DIRECTORY/record" stopped_by)"
    fi
    if [ "$jm_state" = exited ] && jm_oom "$JM_DIRECTORY" "$JM_PID"; then say oom yes; fi
    jm_tail 20 "$JM_DIRECTORY/log"
}

# Another computer may have changed it. That of a server which the user started stands in Jupyter's own file, for good.
jm_token() {
    jm_private "$JM_DIRECTORY/record" && jm_private "$JM_DIRECTORY/token" || return 0
    [ "$(jm_get "$JM_DIRECTORY/record" pid)" = "$JM_PID" ] && [ -z "$(jm_get "$JM_DIRECTORY/record" runtime_file)" ] || return 0
    # cat, not printf: where printf is no builtin, its arguments are for everybody to see.
    printf 'token ' && tr -d '\r\n' <"$JM_DIRECTORY/token" && echo
}
