# shellcheck shell=sh
# uses: lib/kernel
# Start a kernel to check that it works, and report its packages. Changes nothing.
# JM_NAME kernel  JM_SPECS the folder of its spec  JM_PYTHON whose jupyter_client starts it; empty: none
# JM_PROGRAM the program of its argv if it has a path  JM_PREFIX in which it should run if that is known
# JM_NAMED 1: the user asked for this kernel  JM_LIMIT seconds  JM_PROVE Python program
# Says: missing PATH; or foreign PATH, and it was not started;
# or executable, prefix, version, conda, ipywidgets (kernel_proof.py), expected PREFIX, ready yes;
# or failed WHY, and for a Python: ipykernel none, broken WHY, or fine
main() {
    jm_temporary='' jm_answer='' jm_complaint=''
    if [ -n "$JM_PROGRAM" ] && [ ! -x "$JM_PROGRAM" ]; then
        say missing "$JM_PROGRAM"
        return 0
    fi
    [ -n "$JM_PYTHON" ] || return 0
    # What another user can change would run as us: only if the user named this kernel.
    if [ "$JM_NAMED" != 1 ]; then
        for jm_dir in "$JM_PREFIX" "${JM_PROGRAM%/*}" "$JM_SPECS"; do
            [ -z "$jm_dir" ] || jm_firm "$jm_dir" || {
                say foreign "$jm_dir"
                return 0
            }
        done
    fi
    trap 'rm -rf -- "$jm_temporary"; exit 0' HUP INT TERM PIPE
    jm_scratch || fail remote-failed "no room in /tmp" "make room on the host"
    if jm_try_kernel "$JM_SPECS"; then
        printf '%s\n' "$jm_answer" | sed '/^$/d'
        [ -z "$JM_PREFIX" ] || ! cd -P -- "$JM_PREFIX" 2>/dev/null || say expected "$PWD"
        say ready yes
    else
        say failed "$jm_complaint"
        case ${JM_PROGRAM##*/} in python*) jm_diagnose ;; esac
    fi
    cd /
    rm -rf -- "$jm_temporary"
}

jm_diagnose() {
    if jm_runs "$JM_PROGRAM" && ! jm_has "$JM_PROGRAM" ipykernel; then
        say ipykernel none
    elif jm_why=$(within 30 "$JM_PROGRAM" -c 'import ipykernel' 2>&1 </dev/null); then
        say ipykernel fine
    else
        say ipykernel "broken $(printf '%s\n' "${jm_why:-no answer in 30 s}" | tail -n 1 | cut -c1-200)"
    fi
}
