# shellcheck shell=sh disable=SC2154 # some variables come from the libraries
# uses: lib/server lib/environment
# Whether an environment can be changed, what runs from it, and which wheels fit here. Read-only.
# JM_PREFIX
# Says: use PID UID KIND, writable, machine, libc, pip
main() {
    jm_real=$(cd -P -- "$JM_PREFIX" 2>/dev/null && pwd) || bail env-missing "there is no directory $JM_PREFIX" "see jupyman env ls"
    jm_users "$JM_PREFIX" "$jm_real"
    jm_one=no
    for jm_site in "$jm_real"/lib/python3*/site-packages; do [ ! -w "$jm_site" ] || jm_one=yes; done
    say writable "$jm_one"
    say machine "$(uname -m)"
    say libc "$(getconf GNU_LIBC_VERSION 2>/dev/null)"
    for jm_site in "$jm_real"/lib/python3*/site-packages/pip; do [ ! -d "$jm_site" ] || say pip yes; done
}
