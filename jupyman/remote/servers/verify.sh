# shellcheck shell=sh
# uses: lib/server
# Prove that a server still runs and that the socket at its endpoint is its own; this runs before any token is sent.
# JM_NODE on which it was started  JM_PID JM_TICKS JM_BOOT  JM_ENDPOINT port or UNIX socket
# JM_DIRECTORY of the session, or ""
# Says: node, state alive|exited|rebooted|taken|not-listening|elsewhere, kernels (see jm_exposed), token, stopped_by, oom, log
main() {
    # The login may have reached another machine with the same home, which knows nothing about the process.
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
        # A newer server of this session may have replaced it.
        [ "$(jm_get "$JM_DIRECTORY/record" pid)" = "$JM_PID" ] || return 0
        say stopped_by "$(jm_get "$JM_DIRECTORY/record" stopped_by)"
    fi
    if [ "$jm_state" = exited ] && jm_oom "$JM_DIRECTORY" "$JM_PID"; then say oom yes; fi
    jm_tail 20 "$JM_DIRECTORY/log"
}

# jm_token: print the token, which another computer may have changed. An adopted server's is in Jupyter's own file and
# never changes.
jm_token() {
    jm_private "$JM_DIRECTORY/record" && jm_private "$JM_DIRECTORY/token" || return 0
    [ "$(jm_get "$JM_DIRECTORY/record" pid)" = "$JM_PID" ] && [ -z "$(jm_get "$JM_DIRECTORY/record" runtime_file)" ] || return 0
    # cat, not printf: if printf is not a builtin, everybody can see its arguments.
    printf 'token ' && tr -d '\r\n' <"$JM_DIRECTORY/token" && echo
}
