# shellcheck shell=sh
# The kernel specs of this account, of the environments (JM_PREFIXES, one a line) and of the system. Reads only.
# Says: spec.directory, spec.name, spec.user, spec.json
# With JM_PATHS (one a line): which of these programs run. Says: missing PATH; with JM_CHECK 1 also broken PATH<tab>WHY
main() {
    if [ -n "$JM_PATHS" ]; then
        printf '%s\n' "$JM_PATHS" | while IFS= read -r jm_path; do
            if [ ! -x "$jm_path" ]; then
                say missing "$jm_path"
            elif [ "$JM_CHECK" = 1 ]; then
                jm_why=$(within 30 "$jm_path" -c 'import ipykernel' 2>&1 </dev/null) || say broken "$jm_path	$(printf '%s\n' "${jm_why:-no answer in 30 s}" | tail -n 1 | cut -c1-200)"
            fi
        done
        return 0
    fi
    jm_data=${JUPYTER_DATA_DIR:-${XDG_DATA_HOME:-$HOME/.local/share}/jupyter}
    for jm_folder in "$jm_data" "$HOME/Library/Jupyter"; do jm_specs "$jm_folder/kernels" 1; done
    printf '%s\n' "$JM_PREFIXES" | while IFS= read -r jm_prefix; do
        [ -z "$jm_prefix" ] || jm_specs "$jm_prefix/share/jupyter/kernels" 0
    done
    jm_specs /usr/local/share/jupyter/kernels 0
    jm_specs /usr/share/jupyter/kernels 0
}

jm_specs() {
    for jm_file in "$1"/*/kernel.json; do
        [ -r "$jm_file" ] || continue
        jm_dir=${jm_file%/kernel.json}
        say spec.directory "$jm_dir"
        say spec.name "${jm_dir##*/}"
        say spec.user "$2"
        printf 'spec.json ' && head -c 200000 <"$jm_file" | tr -d '\r\n' && echo
    done
}
