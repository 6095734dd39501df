# shellcheck shell=sh
# Compute something small with the torch of an environment, activated as for a kernel. JM_ACTIVATE sh text  JM_PYTHON  JM_PROGRAM its text
# JM_LIMIT seconds  JM_CUDA_SET 1: JM_CUDA is its CUDA_VISIBLE_DEVICES
# Says: status, told (its answer, JSON), line (its last line if there was no answer)
main() { jm_bounded "$((JM_LIMIT + 5))" jm_compute; }

jm_compute() {
    # Only stdout is returned: a process that the program leaves behind must not hold the channel open.
    exec 2>/dev/null
    [ -x "$JM_PYTHON" ] || fail env-missing "there is no Python at $JM_PYTHON" "see jupyman env ls"
    jm_out=$(
        eval "$JM_ACTIVATE"
        if [ "$JM_CUDA_SET" = 1 ]; then
            CUDA_VISIBLE_DEVICES=$JM_CUDA
            export CUDA_VISIBLE_DEVICES
        fi
        # From stdin: in the user's folder a file may be called torch.py.
        cd / && printf '%s\n' "$JM_PROGRAM" | within "$JM_LIMIT" "$JM_PYTHON" - 2>&1
    )
    say status "$?"
    case $jm_out in
        *'jupyman-torch '*) printf '%s\n' "$jm_out" | sed -n 's/^jupyman-torch //p' | tail -n 1 | cut -c1-4000 | lines told ;;
        *) printf '%s\n' "$jm_out" | grep -v '^[[:space:]]*$' | tail -n 1 | cut -c1-500 | lines line ;;
    esac
}
