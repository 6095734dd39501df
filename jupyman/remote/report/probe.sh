# shellcheck shell=sh
# uses: lib/gpus
# A read-only report on the host. JM_DEPTH launch|full  JM_DIR the wanted root directory  JM_GPU_TIMEOUT seconds
# JM_EXTRA further prefixes, one a line. conda itself is not run: it takes a second, and reading its files 20 ms.
main() {
    jm_head
    jm_bounded "$((JM_GPU_TIMEOUT + 5))" jm_parts
}

jm_head() {
    say uid "$(id -u)"
    say user "$(id -un 2>/dev/null)"
    say home "${HOME-}"
    say shell "${SHELL-}"
    say node "$(jm_node)"
    say hostname "$(uname -n)"
    say boot_id "$(jm_boot_id)"
    jm_os
}

# Each part ends with a line "part"; what hangs has none.
jm_parts() {
    # By exec: with a redirection of the call alone, the shell and all its children would keep a copy of stderr.
    exec 2>/dev/null
    { jm_gpus; say part gpus; } &
    { jm_disk; say part disk; } &
    jm_logind &
    if [ "$JM_DEPTH" = full ]; then { jm_toolkits; say part toolkits; } & fi
    if command -v sbatch >/dev/null 2>&1; then { say slurm "$(within 3 sinfo -V || echo slurm)"; } & fi
    jm_environments
    say part environments
    wait
}

jm_os() {
    jm_pretty=
    if [ -r /etc/os-release ]; then
        while IFS='=' read -r jm_key jm_value; do
            [ "$jm_key" != PRETTY_NAME ] || jm_pretty=$jm_value
        done </etc/os-release
    fi
    case $jm_pretty in \"*\" | \'*\') jm_pretty=${jm_pretty#?} jm_pretty=${jm_pretty%?} ;; esac
    say os "${jm_pretty:-$(uname -sr)}"
}

# --- CUDA toolkits ------------------------------------------------------------------------------------------------

jm_toolkits() {
    jm_told=$JM_NL
    for jm_path in /usr/local/cuda-* /usr/local/cuda* /opt/cuda; do jm_toolkit "$jm_path"; done
    # A wrapper on PATH calls a toolkit that is listed already.
    jm_path=$(command -v nvcc) && jm_path=$(readlink -f "$jm_path") && {
        jm_version=$(within 3 "$jm_path" --version | jm_release)
        [ -z "$jm_version" ] || say nvcc "$jm_version"
        case $jm_told in *"$JM_NL $jm_version$JM_NL"*) ;; *) jm_toolkit "${jm_path%/bin/nvcc}" ;; esac
    }
    for jm_path in /usr/include/cudnn_version.h /usr/include/*/cudnn_version.h /usr/local/cuda*/include/cudnn_version.h \
        /usr/local/cuda*/targets/*/include/cudnn_version.h /usr/include/cudnn.h /usr/local/cuda*/include/cudnn.h; do
        # Before version 8 the version was in cudnn.h.
        grep -q '^#define CUDNN_MAJOR' "$jm_path" || continue
        say cudnn "$(sed -n -e 's/^#define CUDNN_MAJOR \([0-9]*\).*/\1/p' -e 's/^#define CUDNN_MINOR \([0-9]*\).*/\1/p' \
            -e 's/^#define CUDNN_PATCHLEVEL \([0-9]*\).*/\1/p' "$jm_path" | head -n 3 | tr '\n' '.' | sed 's/\.$//')"
        break
    done
}

jm_toolkit() {
    jm_home=$1
    cd -P -- "$jm_home" || return 0
    case $jm_told in *"$JM_NL$PWD$JM_NL"*) return 0 ;; esac
    jm_told=$jm_told$PWD$JM_NL
    jm_version=
    [ ! -r version.json ] || jm_version=$(sed -n '/"cuda"[ ]*:/,/}/s/.*"version"[ ]*:[ ]*"\([0-9.]*\)".*/\1/p' version.json | head -n 1)
    [ -n "$jm_version" ] || [ ! -r version.txt ] || jm_version=$(sed -n 's/^CUDA Version \([0-9.]*\).*/\1/p' version.txt | head -n 1)
    [ -n "$jm_version" ] || [ ! -x bin/nvcc ] || jm_version=$(within 3 bin/nvcc --version | jm_release)
    jm_told="$jm_told $jm_version$JM_NL"
    [ -z "$jm_version" ] || say toolkit "$jm_version $jm_home"
}

# jm_release: the version in what `nvcc --version` prints: "release 13.0, V13.0.88".
jm_release() { sed -n 's/.*release [0-9.]*, V\([0-9.]*\).*/\1/p' | head -n 1; }

# --- logins ---------------------------------------------------------------------------------------------------------

# Without an argument loginctl shows the properties of logind itself.
jm_logind() {
    command -v loginctl >/dev/null || return 0
    within 2 loginctl show-session | grep -E '^Kill(UserProcesses|OnlyUsers|ExcludeUsers)=' | lines logind.manager
    within 2 loginctl show-user "$(id -un)" | grep '^Linger=' | lines logind.account
    ! command -v systemd-run >/dev/null || [ ! -S "/run/user/$(id -u)/bus" ] || say logind.bus yes
}

# --- home and disk ------------------------------------------------------------------------------------------------

jm_disk() {
    jm_one=no
    [ ! -d "$HOME" ] || [ ! -w "$HOME" ] || jm_one=yes
    say home_writable "$jm_one"
    within 2 df -Pk -- "$HOME" | sed -n '2p' | lines disk
    [ "$JM_DEPTH" = full ] || return 0
    jm_one=$(within 2 stat -f -c %T -- "$HOME") && say filesystem "$jm_one"
    ! command -v quota >/dev/null 2>&1 || within 2 quota -w | head -n 20 | lines quota
}

# --- environments -------------------------------------------------------------------------------------------------

# Builtins and globs only: a fork takes a millisecond, and a home may hold dozens of environments.
jm_environments() {
    jm_seen=$JM_NL
    jm_roots=$JM_NL
    # First those that the user named: a prefix is listed by the path by which it is found first.
    while IFS= read -r jm_one; do
        jm_expand "$jm_one"
        jm_any "$jm_path"
    done <<EXTRA
$JM_EXTRA
EXTRA
    jm_on_path
    # Roots of conda, mamba and micromamba: from variables, rc files and the usual places.
    for jm_one in "${CONDA_EXE-}" "${MAMBA_EXE-}"; do jm_root_of "${jm_one%/bin/*}"; done
    for jm_one in "${_CONDA_ROOT-}" "${MAMBA_ROOT_PREFIX-}"; do jm_root_of "$jm_one"; done
    jm_rc_roots
    for jm_folder in miniconda3 anaconda3 miniforge3 mambaforge miniconda anaconda miniforge conda micromamba; do
        for jm_one in "$HOME" /opt /usr/local; do jm_root_of "$jm_one/$jm_folder"; done
    done
    jm_root_of "$HOME/.local/share/mamba"
    for jm_one in "$HOME"/.conda/envs/*; do jm_conda_env "$jm_one"; done
    if [ -r "$HOME/.conda/environments.txt" ]; then
        while IFS= read -r jm_one || [ -n "$jm_one" ]; do jm_conda_env "$jm_one"; done <"$HOME/.conda/environments.txt"
    fi
    jm_condarc
    for jm_one in "${VIRTUAL_ENV-}" "$HOME"/.virtualenvs/* "$HOME"/.local/share/virtualenvs/* "$HOME"/venv* "$HOME"/venvs/* \
        "$HOME"/.venv "$HOME"/.venvs/* "$HOME"/env "$HOME"/envs/*; do
        jm_venv "$jm_one"
    done
    jm_expand "$JM_DIR"
    case $jm_path in /*) ;; *) jm_path=$HOME/$jm_path ;; esac
    # These folders, or the target of a link there, may be shared: another user's environment in them would run as us. The
    # real path is used, because whoever can change the folder could redirect a link before it runs.
    for jm_one in "$HOME"/*/.venv "$HOME"/*/venv "$jm_path/.venv"; do
        if [ ! -f "$jm_one/pyvenv.cfg" ] || ! cd -P -- "$jm_one"; then continue; fi
        jm_one=$PWD
        ! jm_firm "$jm_one" || ! jm_firm "${jm_one%/*}" || jm_venv "$jm_one"
    done
}

# jm_expand TEXT: sets jm_path, the text with a leading ~ or $HOME replaced by the home.
jm_expand() {
    case $1 in
        \~/*) jm_path=$HOME/${1#??} ;;
        \$HOME/*) jm_path=$HOME/${1#??????} ;;
        \$\{HOME\}/*) jm_path=$HOME/${1#????????} ;;
        *) jm_path=$1 ;;
    esac
}

jm_venv() { [ ! -f "$1/pyvenv.cfg" ] || jm_env "$1" venv ''; }

# jm_any PREFIX: an environment of any kind; status 1: it is not one.
jm_any() {
    case $1 in /?*) ;; *) return 1 ;; esac
    if [ -d "$1/conda-meta" ]; then
        jm_conda_env "$1"
    elif [ -f "$1/pyvenv.cfg" ]; then
        jm_env "$1" venv ''
    elif [ -x "$1/bin/python" ] || [ -x "$1/bin/python3" ]; then
        jm_env "$1" system ''
    else
        return 1
    fi
}

# Programs on PATH. `pip install --user`, pipx and uv put theirs in ~/.local/bin, which sshd's PATH often lacks.
jm_on_path() {
    for jm_tool in jupyter-lab jupyter-server jupyter-notebook jupyter python3; do
        jm_exe=$(command -v "$jm_tool") || continue
        jm_program "$jm_exe"
        [ "$jm_tool" = python3 ] || say on_path "$jm_real"
    done
    for jm_exe in "$HOME"/.local/bin/jupyter-lab "$HOME"/.local/bin/jupyter-server "$HOME"/.local/bin/jupyter-notebook; do
        [ ! -x "$jm_exe" ] || jm_program "$jm_exe"
    done
}

# jm_program FILE: its environment: by its own path, the target of its link, or the Python in its first line.
jm_program() {
    jm_real=
    if jm_of "$1"; then return; fi
    if [ -L "$1" ] && jm_of "$(readlink -f "$1")"; then return; fi
    jm_python=''
    case $1 in *python3) ;; *) jm_shebang "$1" ;; esac
    if [ -n "$jm_python" ] && jm_of "$jm_python"; then return; fi
    case $1 in */bin/*) jm_env "${1%/bin/*}" system '' "$jm_python" ;; esac
}

# jm_of FILE: the conda environment or venv that contains FILE.
jm_of() {
    case $1 in */bin/*) ;; *) return 1 ;; esac
    [ -d "${1%/bin/*}/conda-meta" ] || [ -f "${1%/bin/*}/pyvenv.cfg" ] || return 1
    jm_any "${1%/bin/*}"
}

# jm_shebang FILE: sets jm_python. A long path is in the second line: '''exec' /path/python "$0" "$@"
jm_shebang() {
    { IFS= read -r jm_line && IFS= read -r jm_line2; } <"$1" || return 0
    # shellcheck disable=SC2016
    case $jm_line in
        '#!'*/sh) jm_line=${jm_line2#"'''exec' "} jm_line=${jm_line%%' "$0"'*} jm_line=${jm_line#\"} jm_python=${jm_line%\"} ;;
        '#!'*env\ *) jm_python=$(command -v "${jm_line##* }") ;;
        '#!'*) jm_line=${jm_line#??} jm_line=${jm_line# } jm_python=${jm_line%% *} ;;
    esac
    case $jm_python in */python*) ;; *) jm_python='' ;; esac
}

# Lines of `conda init` and `mamba shell init`, and lines written by hand. The text is read, never run.
jm_rc_roots() {
    jm_rc=$(sed -n -e '/\/bin\/conda/p' -e '/\/bin\/mamba/p' -e '/\/etc\/profile\.d\/conda/p' -e '/MAMBA_ROOT_PREFIX/p' \
        "$HOME/.bashrc" "$HOME/.bash_profile" "$HOME/.profile" "$HOME/.zshrc" "$HOME/.cshrc" "$HOME/.tcshrc" \
        "$HOME/.config/fish/config.fish" "$HOME"/.config/fish/conf.d/*.fish | head -n 200)
    while IFS= read -r jm_line; do
        case $jm_line in
            *MAMBA_ROOT_PREFIX[=\ ]*) jm_line=${jm_line##*MAMBA_ROOT_PREFIX?} jm_line=${jm_line%;} ;;
            */bin/conda*) jm_line=${jm_line%%/bin/conda*} ;;
            */bin/mamba*) jm_line=${jm_line%%/bin/mamba*} ;;
            */etc/profile.d/conda*) jm_line=${jm_line%%/etc/profile.d/conda*} ;;
            *) continue ;;
        esac
        # The path begins after the last quote (then it may hold spaces), or after the last space.
        jm_line=${jm_line%[\"\']}
        jm_one=${jm_line##*[\"\']}
        case $jm_one in [/~\$]*) ;; *) jm_one=${jm_line##*[ =]} ;; esac
        jm_expand "$jm_one"
        jm_root_of "$jm_path"
    done <<RC
$jm_rc
RC
}

# envs_dirs of .condarc, as a block or as [a, b]; and conda's variables for the same.
jm_condarc() {
    jm_folders="$(printf '%s\n' "${CONDA_ENVS_PATH-}:${CONDA_ENVS_DIRS-}" | tr ':' '\n')"
    for jm_file in "$HOME/.condarc" "$HOME/.mambarc" "$HOME/.conda/.condarc"; do
        [ -r "$jm_file" ] || continue
        jm_in=
        while IFS= read -r jm_line || [ -n "$jm_line" ]; do
            jm_line=${jm_line%% #*}
            case $jm_line in
                envs_dirs:*\[* | envs_path:*\[*)
                    jm_line=${jm_line#*\[}
                    jm_folders=$jm_folders$JM_NL$(printf '%s\n' "${jm_line%%\]*}" | tr ',' '\n')
                    ;;
                envs_dirs:* | envs_path:*) jm_in=1 ;;
                [A-Za-z_]*) jm_in= ;;
                *-\ *) [ -z "$jm_in" ] || jm_folders=$jm_folders$JM_NL${jm_line#*- } ;;
            esac
        done <"$jm_file"
    done
    while IFS= read -r jm_line; do
        jm_line=${jm_line#"${jm_line%%[! ]*}"}
        jm_line=${jm_line%"${jm_line##*[! ]}"}
        jm_line=${jm_line#[\"\']} jm_line=${jm_line%[\"\']}
        jm_expand "$jm_line"
        case $jm_path in /*) for jm_one in "${jm_path%/}"/*; do jm_conda_env "$jm_one"; done ;; esac
    done <<DIRS
$jm_folders
DIRS
}

# jm_root_of ROOT: the base environment and all below envs/. micromamba's root has no environment of its own.
jm_root_of() {
    case $1 in /?*) ;; *) return 0 ;; esac
    jm_base=${1%/}
    jm_flavour=micromamba
    [ ! -x "$jm_base/bin/mamba" ] || jm_flavour=mamba
    [ ! -e "$jm_base/bin/conda" ] && [ ! -d "$jm_base/condabin" ] || jm_flavour=conda
    case $jm_roots in *"$JM_NL$jm_base$JM_NL"*) return 0 ;; esac
    jm_roots=$jm_roots$jm_base$JM_NL
    [ ! -d "$jm_base/conda-meta" ] || jm_env "$jm_base" "$jm_flavour" "$jm_base"
    for jm_sub in "$jm_base"/envs/*; do jm_member "$jm_sub" "$jm_flavour" "$jm_base"; done
}

# jm_conda_env PREFIX: with all environments of its root, if it has one.
jm_conda_env() {
    case $1 in /?*) ;; *) return 0 ;; esac
    jm_base=
    case $1 in */envs/*) jm_base=${1%/envs/*} ;; esac
    if [ -n "$jm_base" ] && { [ -d "$jm_base/conda-meta" ] || [ -d "$jm_base/pkgs" ]; } && [ "$jm_base" != "$HOME/.conda" ]; then
        jm_root_of "$jm_base"
        jm_member "$1" "$jm_flavour" "$jm_base"
    elif [ -d "$1/condabin" ] || [ -d "$1/envs" ]; then
        jm_root_of "$1"
    else
        jm_member "$1" conda ''
    fi
}

jm_member() {
    [ ! -L "$1" ] || ! jm_foreign_owned "$1" || return 0 # its owner could redirect it before it runs
    [ ! -d "$1/conda-meta" ] || { jm_env "$1" "$2" "$3"; return; }
    [ ! -d "$1" ] || [ -x "$1" ] || say closed "$1"
}

# jm_foreign_owned PREFIX: status 0 if another user made it in a folder that is neither theirs nor ours, as anybody can in
# a shared conda. (A conda that another user owns as a whole is trusted.)
jm_foreign_owned() {
    jm_maker "${1%/}" || return 1
    case $jm_uid in 0 | "${jm_self:=$(id -u)}") return 1 ;; esac
    jm_its=$jm_uid
    jm_maker "${1%/*}/." && [ "$jm_uid" != "$jm_its" ] && [ "$jm_uid" != "$jm_self" ]
}

# jm_maker PATH: sets jm_uid, its owner.
jm_maker() {
    jm_ls=$(ls -ldn -- "$1") || return 1
    # shellcheck disable=SC2086 # split into fields on purpose: the mode, the links, the uid
    set -- $jm_ls
    jm_uid=$3
}

# jm_env PREFIX KIND ROOT [PYTHON]: print its facts. Sets jm_real.
jm_env() {
    jm_p=${1%/} jm_kind=$2
    case $1 in *"$JM_NL"*) return 0 ;; esac
    cd -P -- "${jm_p:-/}" || return 0
    jm_real=$PWD
    case $jm_seen in *"$JM_NL$jm_real$JM_NL"*) return 0 ;; esac
    jm_seen=$jm_seen$jm_real$JM_NL
    jm_version='' jm_exec='' jm_torch=''
    for jm_file in "$jm_p/bin/python" "$jm_p/bin/python3" "${4-}"; do
        [ -n "$jm_exec" ] || [ ! -x "$jm_file" ] || jm_exec=$jm_file
    done
    case $jm_kind in
        venv)
            while IFS= read -r jm_line || [ -n "$jm_line" ]; do
                case $jm_line in
                    'version = '* | 'version_info = '*) jm_version=${jm_line#* = } ;;
                    'uv = '*) jm_kind=uv ;;
                esac
            done <"$jm_p/pyvenv.cfg"
            ;;
        system)
            # Python 2 prints it on stderr.
            [ -z "$jm_exec" ] || jm_version=$(within 3 "$jm_exec" -V 2>&1)
            case $jm_version in 'Python '*) jm_version=${jm_version#* } ;; *) jm_version='' ;; esac
            ;;
    esac
    for jm_file in "$jm_p"/conda-meta/python-[0-9]*.json; do
        [ -e "$jm_file" ] || continue
        jm_version=${jm_file##*/python-}
        jm_version=${jm_version%%-*}
    done
    say env.prefix "${jm_p:-/}"
    say env.real "$jm_real"
    say env.kind "$jm_kind"
    say env.root "$3"
    say env.executable "$jm_exec"
    case $jm_kind:$jm_p in
        venv:* | uv:* | system:* | *:"$3") ;;
        *) ! jm_foreign_owned "$jm_p" || say env.lodger yes ;;
    esac
    for jm_app in lab notebook server; do
        [ ! -f "$jm_p/bin/jupyter-$jm_app" ] || [ ! -x "$jm_p/bin/jupyter-$jm_app" ] || say env.app "$jm_app"
    done
    # ~/.local has a folder for each Python that ever used it; an interpreter uses only its own.
    jm_minor='3*'
    case $jm_kind:$jm_version in system:3.*.*) jm_minor=${jm_version%.*} ;; esac
    for jm_site in "$jm_p"/lib/python$jm_minor/site-packages "$jm_p"/lib/python$jm_minor/dist-packages \
        "$jm_p"/local/lib/python$jm_minor/dist-packages "$jm_p"/lib/python3/dist-packages; do
        [ ! -d "$jm_site" ] || jm_packages
    done
    for jm_file in "$jm_p"/conda-meta/pytorch-[0-9]*.json; do
        [ ! -e "$jm_file" ] || { jm_torch=yes; say env.torch_conda "${jm_file##*/}"; }
    done
    [ -z "$jm_torch" ] || jm_firm "$jm_p" || say env.foreign yes
    for jm_file in "$jm_p"/conda-meta/cuda-toolkit-[0-9]*.json "$jm_p"/conda-meta/cudatoolkit-[0-9]*.json \
        "$jm_p"/conda-meta/cuda-nvcc-[0-9]*.json; do
        [ ! -e "$jm_file" ] || say env.toolkit "${jm_file##*/}"
    done
    for jm_file in "$jm_p"/conda-meta/cudnn-[0-9]*.json; do
        [ ! -e "$jm_file" ] || say env.cudnn_conda "${jm_file##*/}"
    done
    say env.python "$jm_version"
    # jupyman's mark of an unfinished environment (lib/environment.sh).
    [ ! -f "$jm_p/.jupyman-incomplete" ] || say env.incomplete yes
    [ ! -d "$jm_p/conda-meta" ] || [ -r "$jm_p/conda-meta" ] || say env.unreadable yes
}

jm_packages() {
    jm_name=${jm_site%/*}
    jm_name=${jm_name##*/python}
    [ -n "$jm_version" ] || [ "$jm_name" = 3 ] || jm_version=$jm_name
    for jm_file in "$jm_site"/jupyter_server-[0-9]*-info "$jm_site"/notebook-[0-9]*-info "$jm_site"/ipykernel-[0-9]*-info \
        "$jm_site"/torch-[0-9]*-info "$jm_site"/torchvision-[0-9]*-info "$jm_site"/torchaudio-[0-9]*-info \
        "$jm_site"/nvidia_cudnn_cu*-[0-9]*-info; do
        [ -e "$jm_file" ] || continue
        jm_name=${jm_file##*/}
        jm_file=${jm_name#*-}
        jm_file=${jm_file%.*-info}
        case $jm_name in nvidia_cudnn*) jm_name=cudnn ;; esac
        say "env.${jm_name%%-*}" "${jm_file%%-py3*}"
    done
    [ -r "$jm_site/torch/version.py" ] || return 0
    jm_torch=yes
    while IFS= read -r jm_line || [ -n "$jm_line" ]; do
        case $jm_line in '__version__'* | 'cuda'* | 'hip'*) say env.torch_line "$jm_line" ;; esac
    done <"$jm_site/torch/version.py"
}
