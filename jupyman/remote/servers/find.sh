# shellcheck shell=sh disable=SC2154 # some variables come from the libraries
# uses: lib/server
# All records of this node, the names of those of other nodes, and every running Jupyter server of this account.
# Read-only: `jupyter server list` would delete files of other nodes with the same home.
# Says: node, boot_id, record.*, other.node + other.name,
# server.file + server.pid, .start_ticks, .started, .app, .listen, .kernels, .json
main() {
    jm_here=$(jm_node)
    say node "$jm_here"
    say boot_id "$(jm_boot_id)"
    say user "$(jm_user)"
    for jm_found in "$HOME"/.local/state/jupyman/*/*/record; do
        [ -f "$jm_found" ] || continue
        jm_dir=${jm_found%/record}
        jm_node_dir=${jm_dir%/*}
        if [ -L "$jm_dir" ] || [ -L "$jm_node_dir" ]; then continue; fi
        if [ "${jm_node_dir##*/}" = "$jm_here" ]; then
            jm_show "$jm_dir"
        elif jm_private "$jm_found"; then
            say other.node "${jm_node_dir##*/}"
            say other.name "${jm_dir##*/}"
        fi
    done
    jm_seen=' '
    for jm_folder in "${JUPYTER_RUNTIME_DIR-}" "${JUPYTER_DATA_DIR:+$JUPYTER_DATA_DIR/runtime}" \
        "${XDG_DATA_HOME:-$HOME/.local/share}/jupyter/runtime" "$HOME/.local/share/jupyter/runtime" \
        "${XDG_RUNTIME_DIR:+$XDG_RUNTIME_DIR/jupyter}" "/run/user/$jm_me/jupyter" "$HOME/Library/Jupyter/runtime"; do
        [ -d "$jm_folder" ] || continue
        for jm_file in "$jm_folder"/jpserver-*.json "$jm_folder"/nbserver-*.json; do
            [ -f "$jm_file" ] || continue
            jm_pid=${jm_file##*server-}
            jm_pid=${jm_pid%.json}
            case $jm_pid in '' | *[!0-9]*) continue ;; esac
            case $jm_seen in *" $jm_pid "*) continue ;; esac
            jm_private "$jm_file" || continue
            jm_ticks_now=$(jm_start "$jm_pid") || continue
            jm_alive "$jm_pid" "$jm_ticks_now" || continue
            jm_seen="$jm_seen$jm_pid "
            say server.file "$jm_file"
            say server.pid "$jm_pid"
            say server.start_ticks "$jm_ticks_now"
            say server.started "$(jm_when "$jm_file")"
            say server.app "$(jm_kind "$jm_pid" "$jm_file")"
            jm_listeners "$jm_pid" | lines server.listen
            jm_exposed "$jm_pid" | lines server.kernels
            printf 'server.json ' && tr -d '\r\n' <"$jm_file" && echo
        done
    done
}

# jm_when FILE: its time of change, RFC 3339 UTC; a runtime file is written once, when the server starts.
jm_when() { date -u -r "$1" +%Y-%m-%dT%H:%M:%SZ 2>/dev/null; }

# jm_kind PID FILE: lab, notebook or server, by its command line (which may hold a token: it is not told).
jm_kind() {
    jm_words=$(tr '\0' ' ' <"/proc/$1/cmdline" 2>/dev/null || ps -o args= -p "$1" 2>/dev/null)
    case $jm_words in
        *jupyter-lab* | *jupyterlab* | *"jupyter lab"*) echo lab ;;
        *jupyter-notebook* | *"jupyter notebook"* | *"-m notebook"*) echo notebook ;;
        *) case $2 in */nbserver-*) echo notebook ;; *) echo server ;; esac ;;
    esac
}
