# shellcheck shell=sh disable=SC2154 # some variables come from the libraries
# uses: lib/server
# Kernels of this account whose server is gone.
# JM_LIST empty: find them. Else lines `PID TICKS`: end these with what they started, if they are still the same processes
# and still orphans. JM_BOOT of the machine  JM_GRACE seconds after SIGTERM, JM_FORCE 1: then SIGKILL.
# Says: boot_id, orphan.pid + .ticks + .file + .memory (KiB) + .child (PID)...; with JM_LIST: ended PID, alive PID, changed PID
main() {
    say boot_id "$(jm_boot_id)"
    [ -d /proc/self ] || return 0
    if [ -n "$JM_LIST" ]; then
        jm_end_all
        return 0
    fi
    for jm_found in $(grep -lF kernel- /proc/[0-9]*/cmdline 2>/dev/null | head -n 500); do
        jm_p=${jm_found#/proc/}
        jm_p=${jm_p%/cmdline}
        jm_orphan "$jm_p" || continue
        say orphan.pid "$jm_p"
        say orphan.ticks "$jm_born"
        say orphan.file "$jm_file"
        say orphan.memory "$(sed -n 's/^VmRSS:[^0-9]*\([0-9]*\) kB$/\1/p' "/proc/$jm_p/status" 2>/dev/null)"
        jm_tree "$jm_p" "$jm_born" '' | sed 's/ .*//' | lines orphan.child
    done
}

# jm_parent PID: its parent's pid.
jm_parent() { sed -n 's/^PPid:[^0-9]*\([0-9]*\)$/\1/p' "/proc/$1/status" 2>/dev/null; }

# jm_starter PID: the pid of the server that started it. jupyter_client (launcher.py) puts it into every kernel's
# environment, which a wrapper around the kernel and all that the kernel starts inherit.
jm_starter() { tr '\0\n' '\n?' <"/proc/$1/environ" 2>/dev/null | sed -n 's/^JPY_PARENT_PID=\([0-9][0-9]*\)$/\1/p' | head -n 1; }

# jm_orphan PID: status 0 for a kernel of ours that nobody uses any more. Sets jm_born (its start time) and jm_file (its
# connection file). A doubtful case is not an orphan: a kernel that was started by hand, one whose server lives (also if
# another process is between them, or the server is on another machine), one that somebody is connected to.
jm_orphan() {
    [ "$(jm_uid_of "$1")" = "$jm_me" ] && jm_born=$(jm_ticks "$1") && jm_alive "$1" "$jm_born" || return 1
    jm_file=$(jm_connection "/proc/$1/cmdline")
    jm_by=$(jm_starter "$1")
    [ -n "$jm_file" ] && [ -n "$jm_by" ] || return 1
    # A process with the server's pid is the server if it is older than the kernel. (Not a zombie: in a container perhaps
    # nobody ever reaps it.)
    case $(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$jm_by/status" 2>/dev/null) in
        '' | Z | X) ;;
        *) [ "$(jm_ticks "$jm_by" || echo 0)" -gt "$jm_born" ] || return 1 ;;
    esac
    jm_up=$(jm_parent "$1")
    while [ "${jm_up:-0}" -gt 1 ]; do
        # Another parent (an ssh login, a batch system, an editor) still owns it, unless that is the user's systemd, which
        # adopts orphans, or a wrapper around the kernel (conda run), which is an orphan as well.
        [ "$(jm_uid_of "$jm_up")" = "$jm_me" ] || return 1
        if [ "$(jm_starter "$jm_up")" != "$jm_by" ]; then
            [ "$(cat "/proc/$jm_up/comm" 2>/dev/null)" = systemd ] || return 1
            break
        fi
        jm_up=$(jm_parent "$jm_up")
    done
    [ -n "$jm_up" ] || return 1
    # Wrappers and forks of a kernel have the same connection file: if one of them is in use, all are.
    # shellcheck disable=SC2013 # names of files in /proc
    for jm_kin in $(grep -lF -- "$jm_file" /proc/[0-9]*/cmdline 2>/dev/null); do
        jm_kin=${jm_kin#/proc/}
        ! jm_attached "${jm_kin%/cmdline}" "$jm_file" || return 1
    done
}

# jm_attached PID FILE: status 0 if somebody follows the kernel's output (its server, jupyter console --existing): there
# is an established connection to its iopub socket. (To its other sockets ipykernel 7 itself is connected.) A server
# removes the connection file when it tells its kernel to end.
jm_attached() {
    [ -f "$2" ] || return 1
    jm_port=$(sed -n 's/.*"iopub_port": *\([0-9][0-9]*\).*/\1/p' 2>/dev/null <"$2" | head -n 1)
    [ -n "$jm_port" ] || return 1
    # With ipc, the address is the beginning of the sockets' paths, and the port their end.
    jm_address=$(sed -n 's/.*"ip": *"\(\/[^"]*\)".*/\1/p' 2>/dev/null <"$2" | head -n 1)
    # shellcheck disable=SC2012 # ls -l prints the link's target in one process
    { ls -l "/proc/$1/fd" 2>/dev/null | sed -n 's/.*socket:\[\([0-9]*\)\]$/\1/p'; echo .; cat /proc/net/tcp /proc/net/tcp6 /proc/net/unix 2>/dev/null; } |
        awk -v port="$(printf ':%04X' "$jm_port")" -v path="${jm_address:+$jm_address-$jm_port}" '
            /^\.$/ { table = 1; next }
            !table { own[$1] = 1; next }
            # local_address st inode; RefCount Flags St Inode Path. 01 and 03: established.
            path == "" && $4 == "01" && ($10 in own) && substr($2, length($2) - 4) == port { met = 1 }
            path != "" && $6 == "03" && ($7 in own) && $8 == path { met = 1 }
            END { exit !met }'
}

jm_end_all() {
    jm_ending='' jm_children=''
    while read -r jm_p jm_t; do
        if [ "$(jm_boot_id)" != "$JM_BOOT" ] || ! jm_alive "$jm_p" "$jm_t" || ! jm_orphan "$jm_p"; then
            say changed "$jm_p"
            continue
        fi
        jm_ending="$jm_ending$jm_p $jm_t$JM_NL"
        jm_children="$jm_children$(jm_tree "$jm_p" "$jm_t" '')$JM_NL"
    done <<JM_END
$JM_LIST
JM_END
    jm_signal TERM
    jm_wait "$JM_GRACE"
    if [ "$JM_FORCE" = 1 ]; then
        jm_signal KILL
        jm_wait 5
    fi
    # What they started ends with them; what another orphan started stays.
    jm_left=''
    while read -r jm_p jm_t; do
        [ -n "$jm_p" ] || continue
        if jm_alive "$jm_p" "$jm_t"; then
            jm_left="$jm_left$(jm_tree "$jm_p" "$jm_t" '')$JM_NL"
            say alive "$jm_p"
        else
            say ended "$jm_p"
        fi
    done <<JM_END
$jm_ending
JM_END
    jm_sweep "$(printf '%s\n' "$jm_children" | sort -u | while read -r jm_p jm_t; do
        case $JM_NL$jm_left$JM_NL in *"$JM_NL$jm_p $jm_t$JM_NL"*) ;; *) [ -z "$jm_p" ] || echo "$jm_p $jm_t" ;; esac
    done)"
}

# jm_signal NAME: send it to each of jm_ending that is still the same process.
jm_signal() {
    printf '%s' "$jm_ending" | while read -r jm_p jm_t; do
        jm_alive "$jm_p" "$jm_t" || continue
        kill -"$1" "$jm_p" 2>/dev/null
        # A stopped process (Ctrl-Z) receives its SIGTERM only when it continues.
        kill -CONT "$jm_p" 2>/dev/null
    done
}

# jm_wait SECONDS: wait until all of jm_ending have ended.
jm_wait() {
    jm_turn=0
    while [ "$jm_turn" -lt $(($1 * 10)) ]; do
        [ -n "$(printf '%s' "$jm_ending" | while read -r jm_p jm_t; do ! jm_alive "$jm_p" "$jm_t" || echo alive; done)" ] || return 0
        jm_nap 0.1
        jm_turn=$((jm_turn + 1))
    done
}
