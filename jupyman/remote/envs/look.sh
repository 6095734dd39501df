# shellcheck shell=sh
# uses: lib/server
# The installers of environments, and Pythons. Read-only.
# JM_ROOTS roots of conda, mamba and micromamba that the probe found, one a line
# Says: home, jobs, machine, libc, tool.kind + .path, .root, .writable; python.path + .version, .venv
main() {
    say home "$HOME"
    say jobs "$(jm_root)/.environments"
    say machine "$(uname -m)"
    say libc "$(getconf GNU_LIBC_VERSION 2>/dev/null)"
    jm_seen=$JM_NL
    for jm_exe in "${CONDA_EXE-}" "$(command -v conda)" "$(command -v mamba)"; do
        case $jm_exe in */bin/* | */condabin/*) jm_base=${jm_exe%/*} && jm_conda "${jm_base%/*}" ;; esac
    done
    while IFS= read -r jm_base; do
        [ -z "$jm_base" ] || jm_conda "$jm_base"
    done <<ROOTS
$JM_ROOTS
ROOTS
    jm_root_dir=${MAMBA_ROOT_PREFIX-}
    while IFS= read -r jm_base; do
        # A root of micromamba has environments but no conda.
        [ -n "$jm_root_dir" ] || [ ! -d "$jm_base/envs" ] || [ -e "$jm_base/bin/conda" ] || [ -d "$jm_base/condabin" ] || jm_root_dir=$jm_base
    done <<ROOTS
$JM_ROOTS
ROOTS
    for jm_exe in "${MAMBA_EXE-}" "$(command -v micromamba)" "$HOME/.local/bin/micromamba" "$HOME/bin/micromamba" "$jm_root_dir/bin/micromamba"; do
        case $jm_exe in */micromamba) jm_tool micromamba "$jm_exe" "$jm_root_dir" yes ;; esac
    done
    for jm_exe in "$(command -v uv)" "$HOME/.local/bin/uv" "$HOME/.cargo/bin/uv"; do
        jm_tool uv "$jm_exe" '' yes
    done
    for jm_exe in "$(command -v python3)" "$HOME"/.pyenv/versions/*/bin/python3; do jm_python "$jm_exe"; done
    for jm_minor in 8 9 10 11 12 13 14 15; do jm_python "$(command -v "python3.$jm_minor")"; done
}

# jm_conda ROOT: the installers of one root, each root once.
jm_conda() {
    jm_at=$(cd -P -- "$1" 2>/dev/null && pwd) || return 0
    case $jm_seen in *"$JM_NL$jm_at$JM_NL"*) return 0 ;; esac
    jm_seen=$jm_seen$jm_at$JM_NL
    jm_write=no
    if [ -d "$1/envs" ]; then
        [ ! -w "$1/envs" ] || jm_write=yes
    elif [ -w "$1" ]; then
        jm_write=yes
    fi
    jm_tool mamba "$1/bin/mamba" "$1" "$jm_write"
    for jm_exe in "$1/bin/conda" "$1/condabin/conda"; do
        [ ! -x "$jm_exe" ] || { jm_tool conda "$jm_exe" "$1" "$jm_write"; return; }
    done
}

# jm_tool KIND PATH ROOT WRITABLE
jm_tool() {
    [ -x "$2" ] && [ -f "$2" ] || return 0
    case $2 in /*) ;; *) return 0 ;; esac
    case $jm_seen in *"$JM_NL$1 $2$JM_NL"*) return 0 ;; esac
    jm_seen="$jm_seen$1 $2$JM_NL"
    say tool.kind "$1"
    say tool.path "$2"
    say tool.root "$3"
    say tool.writable "$4"
}

jm_python() {
    case $1 in /*) ;; *) return 0 ;; esac
    [ -x "$1" ] || return 0
    case $jm_seen in *"$JM_NL$1$JM_NL"*) return 0 ;; esac
    jm_seen=$jm_seen$1$JM_NL
    # Debian's lacks ensurepip without python3-venv.
    jm_told=$(within 5 "$1" -c 'import sys
try:
    import ensurepip, venv
    able = "yes"
except ImportError:
    able = "no"
print("%d.%d.%d" % sys.version_info[:3], able)' 2>/dev/null) || return 0
    say python.path "$1"
    say python.version "${jm_told% *}"
    say python.venv "${jm_told#* }"
}
