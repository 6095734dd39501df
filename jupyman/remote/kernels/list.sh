# shellcheck shell=sh
# The kernel specs of this account, of the environments (JM_PREFIXES, one a line) and of the system, and the packages that
# draw their widgets. Read-only.
# Says: spec.directory, spec.name, spec.user, spec.json; front.prefix (empty: for all), front.lab, front.classic
# With JM_PATHS (one a line): the programs that are gone, or that others can change. Says: missing PATH, foreign PATH
main() {
    if [ -n "$JM_PATHS" ]; then
        printf '%s\n' "$JM_PATHS" | while IFS= read -r jm_path; do
            if [ ! -x "$jm_path" ]; then say missing "$jm_path"; elif ! jm_firm "${jm_path%/*}"; then say foreign "$jm_path"; fi
        done
        return 0
    fi
    jm_data=${JUPYTER_DATA_DIR:-${XDG_DATA_HOME:-$HOME/.local/share}/jupyter}
    say front.prefix ''
    for jm_folder in "$jm_data" "$HOME/Library/Jupyter"; do
        jm_specs "$jm_folder/kernels" 1
        jm_front "$jm_folder"
    done
    printf '%s\n' "$JM_PREFIXES" | while IFS= read -r jm_prefix; do
        [ -n "$jm_prefix" ] || continue
        say front.prefix "$jm_prefix"
        jm_specs "$jm_prefix/share/jupyter/kernels" 0
        jm_front "$jm_prefix/share/jupyter"
        for jm_file in "$jm_prefix"/lib/python3*/site-packages/widgetsnbextension-*-info; do
            [ ! -e "$jm_file" ] || say front.classic "$(printf '%s\n' "${jm_file##*/}" | cut -d- -f2)"
        done
    done
    say front.prefix ''
    for jm_folder in /usr/local/share/jupyter /usr/share/jupyter; do
        jm_specs "$jm_folder/kernels" 0
        jm_front "$jm_folder"
    done
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

# jm_front FOLDER: the version of JupyterLab's extension for widgets, if it is there.
jm_front() {
    jm_file=$1/labextensions/@jupyter-widgets/jupyterlab-manager/package.json
    [ ! -r "$jm_file" ] || say front.lab "$(head -c 100000 <"$jm_file" | sed -n 's/^ *"version": *"\([^"]*\)".*/\1/p' | head -n 1)"
}
