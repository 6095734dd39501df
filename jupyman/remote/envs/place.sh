# shellcheck shell=sh disable=SC2154 # some variables come from the libraries
# uses: lib/server lib/environment
# The directory for a new environment. Read-only.
# JM_PREFIX  JM_NAME of the installation
# Says: exists, incomplete, writable, folder (the nearest that exists), disk (a line of df -Pk), state + wish of an
# earlier installation
main() {
    jm_dir=$(jm_jobs)/$JM_NAME
    jm_job_state "$jm_dir"
    say state "$jm_state"
    ! jm_private "$jm_dir/wish" || { printf 'wish ' && head -c 600000 <"$jm_dir/wish" | tr -d '\r\n' && echo; }
    [ -n "$JM_PREFIX" ] || return 0
    if [ -e "$JM_PREFIX" ] || [ -L "$JM_PREFIX" ]; then
        say exists yes
        [ ! -f "$JM_PREFIX/$jm_mark" ] || say incomplete yes
    fi
    jm_at=${JM_PREFIX%/*}
    while [ -n "$jm_at" ] && [ ! -d "$jm_at" ]; do jm_at=${jm_at%/*}; done
    jm_one=no
    [ ! -w "${jm_at:-/}" ] || [ ! -x "${jm_at:-/}" ] || jm_one=yes
    say writable "$jm_one"
    say folder "${jm_at:-/}"
    within 3 df -Pk -- "${jm_at:-/}" 2>/dev/null | sed -n '2p' | lines disk
}
