# shellcheck shell=sh disable=SC2154 # some variables come from the libraries
# uses: lib/server
# Write a record for a server that the user started, so that other computers see that it belongs to a session. Its token
# stays in Jupyter's runtime file, which the record names.
# JM_NAME session  JM_PID JM_TICKS JM_BOOT JM_ENDPOINT  JM_RECORD lines of the record
# Says: record.*
main() {
    umask 077
    if [ "$(jm_boot_id)" != "$JM_BOOT" ] || ! jm_alive "$JM_PID" "$JM_TICKS" || ! jm_serves "$JM_PID" "$JM_ENDPOINT"; then
        fail server-exited "the server with pid $JM_PID is gone" "see jupyman ps --all"
    fi
    jm_home
    jm_dir=$(jm_root)/$JM_NAME
    jm_safe_dir "$jm_dir"
    for jm_file in record token log; do jm_safe_file "$jm_dir/$jm_file"; done
    if [ -f "$jm_dir/record" ]; then
        jm_other=$(jm_get "$jm_dir/record" pid)
        [ "$jm_other" = "$JM_PID" ] || ! jm_alive "$jm_other" "$(jm_get "$jm_dir/record" start_ticks)" ||
            fail usage "session $JM_NAME already has a server (pid $jm_other)" "choose another --name"
    fi
    rm -f -- "$jm_dir/token" "$jm_dir/cookie_secret" "$jm_dir/jupyter_config.py" "$jm_dir/kernel_config.py" "$jm_dir/log" "$jm_dir/log.old"
    jm_put "$jm_dir/record" "$JM_RECORD
boot_id $(jm_boot_id)
node $(jm_node)" ||
        fail remote-failed "cannot write in $jm_dir: $jm_error" "make room on the host (disk full or quota?)"
    jm_show "$jm_dir"
}
