# shellcheck shell=sh
# Functions for private files, records and processes of servers, and for ending them.
# A session's directory is ~/.local/state/jupyman/<node>/<name>; its `record` holds lines `KEY VALUE`.

jm_me=$(id -u)
# An account from LDAP may have no name here; some `id` then print the number and fail.
jm_user() { jm_account=$(id -un 2>/dev/null) || jm_account=$jm_me && printf '%s\n' "$jm_account"; }

# bail CODE TEXT [HINT]: undo what is incomplete (a script may define jm_undo), then fail.
bail() {
    jm_undo
    fail "$@"
}
jm_undo() { :; }

# jm_look PATH: sets jm_mode (drwx------), jm_links and jm_uid. `stat` is not POSIX, `ls -n` is.
jm_look() {
    jm_ls=$(ls -ldn -- "$1" 2>/dev/null) || return 1
    set -f
    # shellcheck disable=SC2086 # split into fields on purpose
    set -- $jm_ls
    set +f
    jm_mode=$1 jm_links=$2 jm_uid=$3
}

# jm_safe_dir PATH: make or check a directory: ours, no symbolic link, closed to everybody else.
jm_safe_dir() {
    [ ! -L "$1" ] || bail not-ours "$1 is a symbolic link, where jupyman keeps secrets" "find out who made it, then remove it"
    if [ ! -e "$1" ]; then
        # A concurrent launch may make it first: the check below decides.
        jm_error=$(mkdir -m 700 -- "$1" 2>&1) || [ -d "$1" ] ||
            bail remote-failed "cannot make the directory $1: ${jm_error##*: }" "make room or mend its permissions on the host"
    fi
    jm_look "$1" || bail remote-failed "cannot look at $1" "check its permissions on the host"
    if [ -L "$1" ] || [ ! -d "$1" ]; then bail not-ours "$1 is not a directory" "find out who made it, then remove it"; fi
    [ "$jm_uid" = "$jm_me" ] || bail not-ours "$1 belongs to uid $jm_uid, not to you" "ask its owner to remove it"
    case $jm_mode in
        drwx------*) ;;
        *)
            jm_error=$(chmod 700 "$1" 2>&1) || bail remote-failed "cannot make $1 private: ${jm_error##*: }"
            # Some file systems report success and keep the mode.
            jm_look "$1"
            case $jm_mode in drwx------*) ;; *) bail not-ours "$1 stays open to others" "its file system keeps no modes: ask the host's admin" ;; esac
            ;;
    esac
}

# jm_home: make the directories down to <node>. Those above jupyman may be links to another disk; they must be ours and
# not writable by everybody.
jm_home() {
    [ -d "${HOME-}" ] || bail remote-failed "there is no home directory (${HOME-HOME is not set})" "ask the host's admin"
    jm_error=$(mkdir -p -- "$HOME/.local/state" 2>&1) ||
        bail remote-failed "cannot make $HOME/.local/state: ${jm_error##*: }" "make room or mend its permissions on the host"
    chmod o-w "$HOME/.local" "$HOME/.local/state" 2>/dev/null
    for jm_above in "$HOME/.local" "$HOME/.local/state"; do
        jm_firm "$jm_above" || bail not-ours "another user can change what lies in $jm_above" "make it your own, writable by nobody else"
    done
    jm_safe_dir "$HOME/.local/state/jupyman"
    jm_safe_dir "$(jm_root)"
}

# jm_safe_file PATH: check that it is absent, or a regular file of ours with one name.
jm_safe_file() {
    [ ! -L "$1" ] || bail not-ours "$1 is a symbolic link, where jupyman writes" "find out who made it, then remove it"
    [ -e "$1" ] || return 0
    jm_look "$1" || bail remote-failed "cannot look at $1" "check its permissions on the host"
    [ -f "$1" ] || bail not-ours "$1 is not a regular file" "find out who made it, then remove it"
    [ "$jm_uid" = "$jm_me" ] || bail not-ours "$1 belongs to uid $jm_uid, not to you" "ask its owner to remove it"
    [ "$jm_links" = 1 ] || bail not-ours "$1 has a second name (hard link)" "find out who made it, then remove it"
}

# jm_private PATH: status 0 if its content can be trusted: a regular file of ours with one name.
jm_private() {
    [ ! -L "$1" ] && [ -f "$1" ] && jm_look "$1" && [ "$jm_uid" = "$jm_me" ] && [ "$jm_links" = 1 ]
}

# jm_put PATH TEXT: write a file atomically (0600 by the umask). Status 1: it failed, and jm_error is the reason; a pipe
# into it would run it in a subshell and lose that reason. A file that another user placed under the temporary name while
# the directory was open is removed first.
jm_put() {
    jm_error=$({ rm -f -- "$1.new.$$" && cat >"$1.new.$$" && mv -f -- "$1.new.$$" "$1"; } 2>&1 <<JM_END
$2
JM_END
    ) && return 0
    jm_error=${jm_error##*: }
    rm -f -- "$1.new.$$"
    return 1
}

# jm_get FILE KEY: the value of a key in a record.
jm_get() { sed -n "s/^$2 //p" "$1" 2>/dev/null | head -n 1; }

# --- processes ----------------------------------------------------------------------------------------------------

# jm_start PID: its start time as a number, which no other process of this boot with this pid has.
jm_start() {
    if [ -d /proc/self ]; then
        jm_ticks "$1"
    else
        jm_when=$(ps -o lstart= -p "$1" 2>/dev/null) && [ -n "$jm_when" ] && printf '%s' "$jm_when" | cksum | cut -d' ' -f1
    fi
}

jm_uid_of() { if [ -d /proc/self ]; then jm_owner "$1"; else ps -o uid= -p "$1" 2>/dev/null | tr -d ' '; fi; }

# jm_alive PID TICKS: status 0 if this process runs (a zombie does not) and is ours.
jm_alive() {
    case $1 in '' | *[!0-9]*) return 1 ;; esac
    if [ -d /proc/self ]; then
        jm_line=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
        jm_line=${jm_line##*) }
        case $jm_line in Z* | X*) return 1 ;; esac
        # shellcheck disable=SC2086 # split into fields on purpose; with two in front, field N of stat is argument N
        set -- "$1" "$2" $jm_line
        [ "${22-}" = "$2" ] || return 1
    else
        case $(ps -o stat= -p "$1" 2>/dev/null) in '' | Z*) return 1 ;; esac
        [ "$(jm_start "$1")" = "$2" ] || return 1
    fi
    [ "$(jm_uid_of "$1")" = "$jm_me" ]
}

# jm_listeners PID: ADDRESS:PORT of each TCP socket it listens on (hexadecimal, as in /proc/net/tcp; else as lsof prints).
jm_listeners() {
    if [ ! -d /proc/self ]; then
        lsof -nP -a -p "$1" -iTCP -sTCP:LISTEN -Fn 2>/dev/null | sed -n 's/^n//p'
        return
    fi
    # shellcheck disable=SC2012 # ls -l prints the link's target in one process; a loop of readlink takes seconds
    { ls -l "/proc/$1/fd" 2>/dev/null | sed -n 's/.*socket:\[\([0-9]*\)\]$/\1/p'; echo .; cat /proc/net/tcp /proc/net/tcp6 2>/dev/null; } |
        awk '/^\.$/ { table = 1; next } !table { own[$1] = 1; next } $4 == "0A" && ($10 in own) { print $2 }'
}

# jm_listens PID PORT: status 0 if the socket that a connection to 127.0.0.1:PORT reaches belongs to this process. The
# kernel prefers the most specific address: 127.0.0.1, then 0.0.0.0, then [::]. Status 1: none listens, 2: another does.
jm_listens() {
    case $2 in '' | *[!0-9]*) return 1 ;; esac
    if [ ! -d /proc/self ]; then
        jm_listeners "$1" | grep -q "[:.]$2\$" && return 0
        lsof -nP -iTCP:"$2" -sTCP:LISTEN -t >/dev/null 2>&1 && return 2
        return 1
    fi
    jm_met=$(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk -v port="$(printf '%04X' "$2")" '
        $4 != "0A" { next }
        { n = split($2, part, ":"); if (part[n] != port) next; address = part[1] }
        address == "0100007F" { rank = 4 }
        address == "00000000" { rank = 3 }
        address == "0000000000000000FFFF00000100007F" { rank = 2 }
        address == "00000000000000000000000000000000" { rank = 1 }
        address !~ /^(0100007F|00000000|0000000000000000FFFF00000100007F|00000000000000000000000000000000)$/ { next }
        rank > best { best = rank; inode = $10 }
        END { if (best) print inode }')
    [ -n "$jm_met" ] || return 1
    # shellcheck disable=SC2010,SC2012 # as above
    ls -l "/proc/$1/fd" 2>/dev/null | grep -q "socket:\[$jm_met\]\$" || return 2
}

# jm_listens_at PID PATH: the same for the UNIX socket of that path.
jm_listens_at() {
    [ -S "$2" ] && [ ! -L "$2" ] || return 1
    # If a cleaner of /tmp removed the directory and another user made it again, that user's socket need not be in the
    # kernel's table under this path, while the server's own still is.
    jm_look "$2" && [ "$jm_uid" = "$jm_me" ] && jm_firm "${2%/*}" || return 2
    # Num RefCount Protocol Flags Type St Inode Path; the flag 00010000 is a listening socket's (net/unix/af_unix.c).
    jm_met=$(awk -v path="$2" '$8 == path && $4 == "00010000" && $7 ~ /^[0-9]+$/ { print $7 }' /proc/net/unix 2>/dev/null)
    [ -n "$jm_met" ] || return 1
    # A socket that was moved keeps its old path there: if several listen under it, none may belong to another process of
    # ours (another user's cannot). A socket's name may hold a line break, so anybody can forge a line of that table: a line
    # counts only if its inode, which a forger must have read in one of these tables, is in no other line.
    jm_found=1
    for jm_inode in $jm_met; do
        # shellcheck disable=SC2010,SC2012 # as above
        if ls -l "/proc/$1/fd" 2>/dev/null | grep -q "socket:\[$jm_inode\]\$"; then
            jm_found=0
        elif [ "$(cat /proc/net/unix /proc/net/tcp* /proc/net/udp* /proc/net/netlink 2>/dev/null | grep -cw "$jm_inode")" = 1 ] &&
            ls -l /proc/[0-9]*/fd 2>/dev/null | grep -q "socket:\[$jm_inode\]\$"; then
            return 2
        fi
    done
    return "$jm_found"
}

# jm_exposed PID: what opens kernels of this server to every account of the host, a line each:
#   tcp                 a kernel uses TCP without encryption: its cells and outputs can be read. Kernels are children of
#                       the server, and their connection file names the transport (jupyter_client connect.py).
#   debugger PID PORT   a kernel's debugger listens there, and runs code for whoever connects.
jm_exposed() {
    for jm_child in $(cat "/proc/$1/task/"*/children 2>/dev/null || ps -o pid= --ppid "$1" 2>/dev/null); do
        jm_cfile=$(tr '\0' '\n' <"/proc/$jm_child/cmdline" 2>/dev/null | sed -n 's/^\(--\{0,1\}f=\)\{0,1\}\(\/.*\.json\)$/\2/p' | head -n 1)
        if [ -n "$jm_cfile" ] && jm_private "$jm_cfile" && grep -q '"transport": *"tcp"' "$jm_cfile" &&
            ! grep -q '"curve_' "$jm_cfile"; then
            echo tcp
            break
        fi
    done
    # debugpy leaves the kernel's process tree and session (adapter/__main__.py) but keeps its environment, in which
    # jupyter_client (launcher.py) puts the server's pid.
    # shellcheck disable=SC2013 # names of files in /proc
    for jm_debugger in $(grep -lF debugpy /proc/[0-9]*/cmdline 2>/dev/null); do
        jm_debugger=${jm_debugger#/proc/}
        jm_debugger=${jm_debugger%/cmdline}
        [ "$(jm_uid_of "$jm_debugger")" = "$jm_me" ] || continue
        tr '\0\n' '\n?' <"/proc/$jm_debugger/environ" 2>/dev/null | grep -qx "JPY_PARENT_PID=$1" || continue
        for jm_at in $(jm_listeners "$jm_debugger"); do echo "debugger $jm_debugger $(printf '%d' "0x${jm_at##*:}")"; done
    done
}

# jm_serves PID ENDPOINT: jm_listens or jm_listens_at, for a port or the path of a UNIX socket.
jm_serves() { case $2 in /*) jm_listens_at "$1" "$2" ;; *) jm_listens "$1" "$2" ;; esac }

# jm_endpoint FILE: the endpoint in a record: the path of a UNIX socket, or a port.
jm_endpoint() {
    jm_path=$(jm_get "$1" sock)
    printf '%s\n' "${jm_path:-$(jm_get "$1" port)}"
}

# jm_tree PID TICKS RUNTIME: `PID TICKS` of what a server leaves behind: its descendants (none if another process has its
# pid now), whole sessions led by one of them, kernels whose connection file is in RUNTIME, and what a dead kernel started.
# Terminals and what runs in them (they have a tty) are left out: Jupyter hangs them up itself, and a user's tmux or nohup
# there must live on.
jm_tree() {
    [ -d /proc/self ] || return 0
    {
        if [ -n "$3" ]; then
            grep -lF -- "$3/" /proc/[0-9]*/cmdline 2>/dev/null | sed 's|^/proc/\([0-9]*\)/.*|kernel \1|'
            # grep -z is not portable: both names must occur somewhere in the environment.
            grep -lF -- "JUPYTER_RUNTIME_DIR=$3" /proc/[0-9]*/environ 2>/dev/null |
                while read -r jm_file; do ! grep -qF JPY_PARENT_PID= "$jm_file" 2>/dev/null || echo "$jm_file"; done |
                sed 's|^/proc/\([0-9]*\)/.*|heir \1|'
        fi
        printf '%s\n' /proc/[0-9]* | sed 's|^/proc/|there |'
        # Only our own processes: a process name may hold line breaks, by which another user could add lines here.
        echo table
        grep -l "^Uid:[[:space:]]*${jm_me}[[:space:]]" /proc/[0-9]*/status 2>/dev/null | sed 's|status$|stat|' |
            xargs cat 2>/dev/null
    } | awk -v root="$1" -v began="$2" -v self="$$" '
        !table && $1 == "kernel" { kernel[$2] = 1 }
        !table && $1 == "heir" { heir[$2] = 1 }
        !table && $1 == "there" { there[$2] = 1 }
        $1 == "table" { table = 1 }
        table && /\) / {
            pid = $1; line = $0; sub(/^.*\) /, "", line); split(line, f, " ")
            if (f[1] == "Z") { delete there[pid]; next } # dead: what it started is an orphan
            parent[pid] = f[2]; session[pid] = f[4]; tty[pid] = f[5]; start[pid] = f[20]
        }
        END {
            if ((root in parent) && start[root] == began) found[root] = 1
            for (pid in parent) {
                if (pid in kernel) found[pid] = 1
                if ((pid in heir) && !(session[pid] in there)) found[pid] = 1
            }
            do {
                more = 0
                for (pid in parent) if (!(pid in found) && tty[pid] == 0)
                    if ((parent[pid] in found) || (session[pid] in found)) { found[pid] = 1; more = 1 }
            } while (more)
            for (pid in found) if (pid != root && pid != self && pid > 1) print pid, start[pid]
        }'
}

# jm_sweep LIST: end the processes of a list from jm_tree: TERM, up to 3 s, KILL. Each is checked before each signal.
jm_sweep() {
    [ -n "$1" ] || return 0
    printf '%s\n' "$1" | while read -r jm_p jm_t; do ! jm_alive "$jm_p" "$jm_t" || kill -TERM "$jm_p" 2>/dev/null; done
    jm_turn=0
    while [ "$jm_turn" -lt 30 ]; do
        jm_left=$(printf '%s\n' "$1" | while read -r jm_p jm_t; do ! jm_alive "$jm_p" "$jm_t" || echo "$jm_p $jm_t"; done)
        [ -n "$jm_left" ] || return 0
        jm_nap 0.1
        jm_turn=$((jm_turn + 1))
    done
    printf '%s\n' "$jm_left" | while read -r jm_p jm_t; do ! jm_alive "$jm_p" "$jm_t" || kill -KILL "$jm_p" 2>/dev/null; done
}

# jm_end_server PID TICKS RUNTIME SECONDS FORCE: TERM, wait, KILL if FORCE is 1, then the leftovers.
# Status 1: it still runs.
jm_end_server() {
    jm_leftovers=$(jm_tree "$1" "$2" "$3")
    ! jm_alive "$1" "$2" || kill -TERM "$1" 2>/dev/null
    jm_turn=0
    while jm_alive "$1" "$2"; do
        if [ "$jm_turn" -ge "$(($4 * 10))" ]; then
            [ "$5" = 1 ] || return 1
            jm_leftovers=$(jm_tree "$1" "$2" "$3")
            ! jm_alive "$1" "$2" || kill -KILL "$1" 2>/dev/null
            jm_last=0
            while jm_alive "$1" "$2" && [ "$jm_last" -lt 50 ]; do
                jm_nap 0.1
                jm_last=$((jm_last + 1))
            done
            ! jm_alive "$1" "$2" || return 1
            break
        fi
        jm_nap 0.1
        jm_turn=$((jm_turn + 1))
        [ $((jm_turn % 10)) -ne 0 ] || say tick "$jm_turn"
    done
    jm_sweep "$(printf '%s\n' "$jm_leftovers" "$(jm_tree "$1" "$2" "$3")" | sed '/^$/d' | sort -u)"
}

# jm_runtime_ok DIR: status 0 for a runtime directory that jupyman made (mktemp) and that is still private.
jm_runtime_ok() {
    case $1 in */../* | */./* | [!/]*) return 1 ;; esac
    case ${1##*/} in
        jm-*[!A-Za-z0-9]*) return 1 ;;
        jm-??????) ;;
        *) return 1 ;;
    esac
    [ ! -L "$1" ] && [ -d "$1" ] && jm_look "$1" && [ "$jm_uid" = "$jm_me" ] || return 1
    # The T is Jupyter's: it sets the sticky bit on the directory of connection files.
    case $jm_mode in drwx-----[-T]*) ;; *) return 1 ;; esac
}
jm_drop_runtime() { ! jm_runtime_ok "$1" || rm -rf -- "$1"; }

# jm_memory_events PID: the kernel's file that counts the OOM kills in this process's memory group
# (cgroup v2: memory.events, v1: memory.oom_control).
jm_memory_events() {
    jm_group=$(sed -n 's/^0:://p' "/proc/$1/cgroup" 2>/dev/null)
    if [ -n "$jm_group" ] && [ -r "/sys/fs/cgroup$jm_group/memory.events" ]; then
        printf '%s\n' "/sys/fs/cgroup$jm_group/memory.events"
        return
    fi
    jm_group=$(sed -n 's/^[0-9]*:memory://p' "/proc/$1/cgroup" 2>/dev/null)
    [ -z "$jm_group" ] || [ ! -r "/sys/fs/cgroup/memory$jm_group/memory.oom_control" ] ||
        printf '%s\n' "/sys/fs/cgroup/memory$jm_group/memory.oom_control"
}

# jm_oom_kills FILE: that count.
jm_oom_kills() {
    case $1 in
        */../*) return 1 ;;
        /sys/fs/cgroup/*) sed -n 's/^oom_kill \([0-9]*\)$/\1/p' "$1" 2>/dev/null ;;
    esac
}

# jm_oom DIR PID: status 0 if the OOM killer ended it: the kernel's log, if readable, names the process, or the count of
# its group has grown since the launch.
jm_oom() {
    dmesg 2>/dev/null | grep -q "Killed process $2 " && return 0
    jm_then=$(jm_get "$1/record" oom_kills)
    jm_since=$(jm_oom_kills "$(jm_get "$1/record" memory_events)")
    [ -n "$jm_then" ] && [ -n "$jm_since" ] && [ "$jm_since" -gt "$jm_then" ]
}

# --- facts --------------------------------------------------------------------------------------------------------

# Our tokens are 48 hexadecimal digits; Jupyter's own in the log follow `token=`.
jm_redact() { sed -e "s/\\([Tt]oken[=:]\\)[^&[:space:]\"']*/\\1***/g" -e 's/[0-9a-f]\{48\}/***/g'; }

# jm_tail N FILE: its last lines as facts `log`, tokens redacted.
jm_tail() { ! jm_private "$2" || tail -n "$1" "$2" 2>/dev/null | jm_redact | lines log; }

# jm_show DIR: a record as facts `record.KEY`, with its state and token.
jm_show() {
    jm_private "$1/record" || return 0
    say record.directory "$1"
    jm_rpid=$(jm_get "$1/record" pid)
    if [ "$(jm_get "$1/record" boot_id)" != "$(jm_boot_id)" ]; then
        say record.state rebooted
    elif jm_alive "$jm_rpid" "$(jm_get "$1/record" start_ticks)"; then
        jm_serves "$jm_rpid" "$(jm_endpoint "$1/record")"
        case $? in 0) say record.state alive ;; 1) say record.state not-listening ;; *) say record.state taken ;; esac
        jm_exposed "$jm_rpid" | lines record.kernels
    else
        say record.state exited
    fi
    # After the state: of several facts of a name the first counts, and a record may hold any line.
    sed -n 's/^[a-z_]* ./record.&/p' "$1/record"
    jm_rfile=$(jm_get "$1/record" runtime_file)
    # cat, not printf: if printf is not a builtin, everybody can see its arguments.
    if [ -n "$jm_rfile" ]; then
        if jm_private "$jm_rfile"; then printf 'record.json ' && tr -d '\r\n' <"$jm_rfile" && echo; fi
    elif jm_private "$1/token"; then
        printf 'record.token ' && tr -d '\r\n' <"$1/token" && echo
    fi
}
