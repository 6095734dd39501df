# shellcheck shell=sh
# Remove a kernel spec of this account: only a directory of ours that holds a kernel.json.
# JM_NAME kernel
# Says: directory
main() {
    jm_target=''
    for jm_folder in "${JUPYTER_DATA_DIR:-${XDG_DATA_HOME:-$HOME/.local/share}/jupyter}/kernels" "$HOME/Library/Jupyter/kernels"; do
        # Jupyter looks names up in lower case; the directory may have capitals.
        for jm_dir in "$jm_folder"/*; do
            if [ "$(printf '%s' "${jm_dir##*/}" | tr '[:upper:]' '[:lower:]')" = "$JM_NAME" ] && { [ -e "$jm_dir" ] || [ -L "$jm_dir" ]; }; then
                jm_target=$jm_dir
                break 2
            fi
        done
    done
    [ -n "$jm_target" ] || fail usage "you have no kernel $JM_NAME on this host" "see jupyman kernel ls; those of an environment or of the system stay"
    [ ! -L "$jm_target" ] || fail not-ours "$jm_target is a symbolic link" "find out who made it, then remove it by hand"
    if [ ! -d "$jm_target" ] || [ -L "$jm_target/kernel.json" ] || [ ! -f "$jm_target/kernel.json" ]; then
        fail not-ours "$jm_target does not look like a kernel spec" "remove it by hand if you know what it is"
    fi
    # shellcheck disable=SC2012 # stat is not POSIX
    jm_uid=$(ls -ldn -- "$jm_target" | awk '{ print $3; exit }')
    [ "$jm_uid" = "$(id -u)" ] || fail not-ours "$jm_target belongs to uid $jm_uid, not to you" "ask its owner to remove it"
    jm_error=$(rm -rf -- "$jm_target" 2>&1) || fail remote-failed "cannot remove $jm_target: ${jm_error##*: }" "mend its permissions on the host"
    say directory "$jm_target"
}
