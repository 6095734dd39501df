# shellcheck shell=sh disable=SC2154 # some variables come from the libraries
# uses: lib/server lib/environment
# Report on an environment that is to be removed, or remove it: only a directory of this account that is an environment.
# JM_PREFIX, or "" if there is only an installation  JM_NAME of the installation, or ""
# JM_REMOVE 1: remove it  JM_FORCE 1: even if programs of it run
# Says: size (KiB), use PID UID KIND, state of the installation, removed
main() {
    jm_dir=''
    [ -z "$JM_NAME" ] || jm_dir=$(jm_jobs)/$JM_NAME
    jm_state=none
    [ -z "$jm_dir" ] || jm_job_state "$jm_dir"
    say state "$jm_state"
    jm_found=''
    if [ -n "$JM_PREFIX" ] && { [ -e "$JM_PREFIX" ] || [ -L "$JM_PREFIX" ]; }; then
        jm_own_env "$JM_PREFIX"
        jm_found=1
    fi
    if [ "$JM_REMOVE" != 1 ]; then
        [ -n "$jm_found" ] || return 0
        jm_users "$JM_PREFIX" "$jm_real"
        jm_size=$(within 20 du -sk -- "$jm_real" 2>/dev/null | cut -f1)
        say size "$jm_size"
        return 0
    fi
    [ -z "$jm_found" ] || [ -z "$JM_NAME" ] || ! jm_elsewhere "$JM_PREFIX" "$JM_NAME" ||
        bail usage "$JM_PREFIX is being made on $jm_there, which has the same home" "run this against that machine"
    jm_stop
    if [ -n "$jm_found" ]; then
        # Checked again: a kernel may have been started since the question.
        jm_busy=$(jm_users "$JM_PREFIX" "$jm_real")
        [ -z "$jm_busy" ] || [ "$JM_FORCE" = 1 ] || bail usage "programs of $JM_PREFIX run: pid $(printf '%s\n' "$jm_busy" | cut -d' ' -f2 | tr '\n' ' ')" "end them first, or use --force"
        jm_remove
        say removed "$JM_PREFIX"
    fi
    if [ -n "$jm_dir" ] && [ -d "$jm_dir" ] && [ ! -L "$jm_dir" ]; then
        jm_look "$jm_dir" && [ "$jm_uid" = "$jm_me" ] && rm -rf -- "$jm_dir"
    fi
    return 0
}

# jm_stop: end a running installation with everything that it started.
jm_stop() {
    [ "$jm_state" = running ] || return 0
    jm_end_server "$(jm_get "$jm_dir/status" pid)" "$(jm_get "$jm_dir/status" ticks)" '' 5 1 >/dev/null ||
        bail remote-failed "the installation of $JM_NAME (pid $(jm_get "$jm_dir/status" pid)) does not end" "look at it on the host"
}

# jm_remove: rename it, then remove it file by file. Links in it are removed, not followed.
jm_remove() {
    jm_gone=${jm_real%/*}/.jupyman-removed-${jm_real##*/}-$$
    jm_error=$(mv -- "$jm_real" "$jm_gone" 2>&1) || bail remote-failed "cannot remove $JM_PREFIX: ${jm_error##*: }" "mend the permissions of its folder on the host"
    # conda's packages have directories that even their owner cannot write in. Only directories: a file may be a hard link
    # to conda's cache.
    rm -rf -- "$jm_gone" 2>/dev/null || find "$jm_gone" -type d -exec chmod u+rwx {} + 2>/dev/null
    jm_error=$(rm -rf -- "$jm_gone" 2>&1) || bail remote-failed "not all of $JM_PREFIX could be removed; the rest is in $jm_gone" "remove it by hand: ${jm_error##*: }"
}
