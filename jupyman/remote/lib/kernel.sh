# shellcheck shell=sh
# Functions for kernels: start one to check that it works, and install packages into its environment.

# jm_scratch: makes jm_temporary, a directory that nobody else can replace; status 1: there is no room.
jm_scratch() {
    for jm_tmp in "${TMPDIR:-/tmp}" /tmp /var/tmp; do
        if jm_firm "$jm_tmp" && jm_temporary=$(mktemp -d "$jm_tmp/jm-XXXXXX" 2>/dev/null); then return 0; fi
    done
    jm_temporary=''
    return 1
}

# jm_try_kernel FOLDER: start kernel JM_NAME of a folder of specs by the jupyter_client of JM_PYTHON, and ask it for its
# interpreter. Sets jm_answer, or jm_complaint with a status. JM_PROVE program  JM_LIMIT seconds
jm_try_kernel() {
    jm_stderr=$jm_temporary/stderr
    # shellcheck disable=SC2034 # for the caller
    # The program watches the channel by fd 4: when that closes, the kernel must end at once.
    { jm_answer=$(printf '%s\n' "$JM_PROVE" | within "$((JM_LIMIT + 10))" "$JM_PYTHON" - "$JM_NAME" "$1" "$JM_LIMIT" 4 2>"$jm_stderr"); } 4>&1
    jm_status=$?
    jm_complaint=$(tail -n 1 "$jm_stderr" | cut -c1-300)
    [ "$jm_status" -eq 0 ] || jm_complaint=${jm_complaint:-no answer in $JM_LIMIT s}
    return "$jm_status"
}

# jm_runs PYTHON: status 0 if it runs at all.
jm_runs() { "$1" -c '' 2>/dev/null </dev/null; }

# jm_has PYTHON PACKAGE: status 0 if the package is there; it may still be broken.
jm_has() { "$1" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)' "$2" 2>/dev/null </dev/null; }

# jm_installer PACKAGE...: the command that installs them into JM_PREFIX by that environment's own tool, one word a line.
# Status 1: it has no tool; 2: this account cannot change it. JM_PYTHON JM_KIND JM_ROOT of the environment
jm_installer() {
    # The directory of its packages, whether ~/.local is used, too, whether the system's package manager owns it (PEP 668).
    jm_where=$("$JM_PYTHON" -c 'import os, site, sys, sysconfig
paths = sysconfig.get_paths()
owned = sys.prefix == sys.base_prefix and os.path.exists(os.path.join(paths["stdlib"], "EXTERNALLY-MANAGED"))
print(paths["purelib"], int(bool(site.ENABLE_USER_SITE)), int(owned), sep="\n")' 2>/dev/null </dev/null) || return 1
    {
        read -r jm_site
        read -r jm_user_site
        read -r jm_owned
    } <<JM_END
$jm_where
JM_END
    jm_pip=''
    ! "$JM_PYTHON" -m pip --version >/dev/null 2>&1 </dev/null || jm_pip=1
    if [ "$jm_owned" = 1 ] || [ ! -w "$jm_site" ]; then
        if [ "$jm_owned" = 1 ] || [ "$jm_user_site" != 1 ] || [ -z "$jm_pip" ]; then return 2; fi
        printf '%s\n' "$JM_PYTHON" -m pip install --user --disable-pip-version-check --no-input "$@"
        return 0
    fi
    case $JM_KIND in
        conda | mamba | micromamba)
            for jm_tool in "${JM_ROOT:-/nowhere}/bin/mamba" "${JM_ROOT:-/nowhere}/bin/conda" "${JM_ROOT:-/nowhere}/condabin/conda" \
                "$HOME/.local/bin/micromamba" micromamba mamba conda; do
                if command -v "$jm_tool" >/dev/null 2>&1; then
                    printf '%s\n' "$jm_tool" install -y -p "$JM_PREFIX" "$@"
                    return 0
                fi
            done
            ;;
    esac
    if [ "$JM_KIND" != uv ] || ! command -v uv >/dev/null 2>&1; then
        if [ -n "$jm_pip" ]; then
            printf '%s\n' "$JM_PYTHON" -m pip install --disable-pip-version-check --no-input "$@"
            return 0
        fi
        command -v uv >/dev/null 2>&1 || return 1
    fi
    printf '%s\n' uv pip install --python "$JM_PYTHON" "$@"
}

# jm_execute WORDS: run a command of one word a line; each line of its output is a fact. Sets jm_status.
jm_execute() {
    # shellcheck disable=SC2086 # split into words on purpose, at line ends only
    {
        IFS=$JM_NL
        set -f
        set -- $1
        set +f
        unset IFS
    }
    # The status of a pipe is that of its last command, so the tool's own is passed as a line.
    exec 3>&1
    jm_status=$({ "$@" 2>&1 </dev/null || echo "jm-status $?"; } | {
        jm_result=0
        while IFS= read -r jm_line || [ -n "$jm_line" ]; do
            case $jm_line in
                'jm-status '*) jm_result=${jm_line#jm-status } ;;
                *) say line "$jm_line" >&3 ;;
            esac
        done
        echo "$jm_result"
    })
    exec 3>&-
}
