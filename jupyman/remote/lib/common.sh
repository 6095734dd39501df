# shellcheck shell=sh
# Comes before every script and after the variables JM_*. POSIX sh only: dash, busybox and old bash run it.
LC_ALL=C
export LC_ALL
unset CDPATH ENV BASH_ENV
JM_NL='
'

jm_begin() { printf '\n%s begin\n' "$JM_MARK"; }
jm_end() { printf '\n%s end %s\n' "$JM_MARK" "$1"; }

# say NAME VALUE: one fact. A newline in a value would forge another fact.
say() {
    case $2 in
        *"$JM_NL"*) printf '%s %s\n' "$1" "$(printf '%s' "$2" | tr '\n\r' '??')" ;;
        *) printf '%s %s\n' "$1" "$2" ;;
    esac
}

# fail CODE TEXT [HINT]: end the script with an error of jupyman/errors.py.
fail() {
    say error "$1 $2"
    [ -z "${3-}" ] || say hint "$3"
    jm_end 1
    exit 0
}

# lines NAME: each line of stdin becomes a fact.
lines() { while IFS= read -r jm_line || [ -n "$jm_line" ]; do printf '%s %s\n' "$1" "$jm_line"; done; }

# within SECONDS COMMAND...: run it, and end it after SECONDS (status 124). timeout(1) is not POSIX: without it a watcher
# kills the command. A process stuck in the kernel (dead NFS, stuck driver) is left behind.
within() {
    jm_limit=$1
    shift
    if command -v timeout >/dev/null 2>&1; then
        timeout -k 1 "$jm_limit" "$@"
        return
    fi
    # Through another descriptor: a background command has /dev/null as its stdin.
    { "$@" <&3 3<&- & } 3<&0
    jm_child=$!
    (
        jm_n=0
        while [ "$jm_n" -lt "$jm_limit" ]; do
            sleep 1
            jm_n=$((jm_n + 1))
        done
        kill -9 "$jm_child"
    ) >/dev/null 2>&1 &
    jm_watch=$!
    wait "$jm_child"
    jm_status=$?
    kill "$jm_watch" >/dev/null 2>&1
    [ "$jm_status" -ne 137 ] || jm_status=124
    return "$jm_status"
}

# jm_bounded SECONDS COMMAND...: print its output for at most SECONDS. A process stuck in the kernel (dead NFS, stuck
# driver) cannot be killed and would hold the channel open by its stdout. So it writes to a cat, which can be killed; what
# has arrived by then counts. dash waits for a whole pipeline, stuck parts included, so a signal ends that wait.
# Only in the main shell: $$ is its pid in every subshell, too.
jm_bounded() {
    jm_bound=$1
    shift
    trap : USR1
    "$@" | cat &
    jm_cat=$!
    (
        trap 'kill "$jm_sleep"; exit 0' TERM
        sleep "$jm_bound" &
        jm_sleep=$!
        wait "$jm_sleep"
        kill "$jm_cat"
        kill -USR1 $$
    ) >/dev/null 2>&1 &
    jm_watch=$!
    wait "$jm_cat" 2>/dev/null
    kill "$jm_watch" 2>/dev/null
    return 0
}

# jm_nap: a short pause if sleep accepts fractions (GNU, busybox, BSD), else a second.
jm_nap() { sleep "${1:-0.05}" 2>/dev/null || sleep 1; }

# jm_node: the name of this machine, safe as a directory name. A home may be shared by several machines.
jm_node() { uname -n | tr -c 'A-Za-z0-9._\n-' '_' | cut -c1-64; }

jm_boot_id() { cat /proc/sys/kernel/random/boot_id 2>/dev/null || sysctl -n kern.bootsessionuuid 2>/dev/null || echo unknown; }

# jm_ticks PID: field 22 of /proc/PID/stat, the start time in clock ticks since boot. The command name (field 2) may
# hold spaces and brackets, so cut after the last ")".
jm_ticks() {
    [ -r "/proc/$1/stat" ] || return 1
    jm_stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    jm_stat=${jm_stat##*) }
    # shellcheck disable=SC2086 # split into fields on purpose
    set -- $jm_stat
    [ -n "${20-}" ] && echo "${20}"
}

# jm_owner PID: the real uid of a process.
jm_owner() { sed -n 's/^Uid:[[:space:]]*\([0-9]*\).*/\1/p' "/proc/$1/status" 2>/dev/null; }

# jm_connection FILE: the last word of a command line (/proc/PID/cmdline) that names a kernel's connection file. In each
# language's kernel it is a word of its own: kernel-ID.json (jupyter_client, connect.py).
jm_connection() { tr '\0\n' '\n?' <"$1" 2>/dev/null | grep 'kernel-[^/]*\.json$' | tail -n 1 | cut -c1-1000; }

# jm_firm DIR: status 0 if only root can rename what we make in it: it is ours or root's, and is not writable by everybody,
# or has the sticky bit. (A group that can write is the user's own choice.)
jm_firm() {
    jm_ls=$(ls -ldn -- "$1/." 2>/dev/null) || return 1
    # shellcheck disable=SC2086 # split into fields on purpose: the mode, the links, the uid
    set -- $jm_ls
    case $3 in 0 | "${jm_self:=$(id -u)}") ;; *) return 1 ;; esac
    case $1 in d???????-* | d????????[tT]*) ;; *) return 1 ;; esac
}

# jm_root: print our directory on this host; it is not created.
jm_root() { printf '%s\n' "$HOME/.local/state/jupyman/$(jm_node)"; }
