# shellcheck shell=sh
# The listeners on TCP ports. The kernel's table shows the sockets of all users; lsof, else ss, else /proc/PID/fd shows
# the processes of our own. JM_PORTS: only these ports, separated by spaces; empty: all.
main() {
    say uid "$(id -u)"
    say boot_id "$(jm_boot_id)"
    jm_wanted=
    for jm_port in $JM_PORTS; do jm_wanted="$jm_wanted$(printf '%04X' "$jm_port")|"; done
    # sl local remote state tx:rx tr:when retrnsmt uid timeout inode; 0A is LISTEN
    jm_table=$(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | sed -n '/^ *[0-9]*: [0-9A-F]*:[0-9A-F]* [0-9A-F:]* 0A /p')
    jm_inodes=' ' jm_uids=' '
    while read -r _ jm_local _ _ _ _ _ jm_owner_uid _ jm_inode _; do
        [ -n "$jm_inode" ] || continue
        case $jm_wanted in '' | *"${jm_local##*:}|"*) ;; *) continue ;; esac
        say tcp "0: $jm_local 0:0 0A 0:0 0:0 0 $jm_owner_uid 0 $jm_inode"
        jm_inodes="$jm_inodes$jm_inode "
        case $jm_uids in *" $jm_owner_uid "*) ;; *) jm_uids="$jm_uids$jm_owner_uid " ;; esac
    done <<TABLE
$jm_table
TABLE
    for jm_owner_uid in $jm_uids; do
        # The directory service behind it may hang; then the number must do.
        jm_name=$(within 2 id -un -- "$jm_owner_uid" 2>/dev/null) && say account "$jm_owner_uid $jm_name"
    done
    # No socket: no tool needs to run.
    [ "$jm_inodes" != ' ' ] || [ ! -r /proc/net/tcp ] || return 0
    jm_pids=
    jm_lsof || jm_ss || jm_proc
    for jm_pid in $jm_pids; do jm_process "$jm_pid"; done
    return 0
}

# -w: no warnings about file systems that hang; lsof may still hang on them.
jm_lsof() {
    command -v lsof >/dev/null 2>&1 || return 1
    # Its status is 1 if it found nothing or not everything; 124 is ours. No output although a socket is ours: it is broken.
    jm_out=$(within 5 lsof -w -nP -iTCP -sTCP:LISTEN -F pcuLfdn 2>/dev/null)
    case $?:$jm_out in [01]:p*) ;; 1:) case $jm_uids in *" $(id -u) "*) return 1 ;; esac ;; *) return 1 ;; esac
    say tool lsof
    printf '%s\n' "$jm_out" | lines lsof
    jm_pids=$(printf '%s\n' "$jm_out" | sed -n 's/^p\([0-9]*\)$/\1/p')
}

jm_ss() {
    command -v ss >/dev/null 2>&1 || return 1
    jm_out=$(within 5 ss -ltnpe 2>/dev/null) || return 1
    say tool ss
    printf '%s\n' "$jm_out" | lines ss
    jm_pids=$(printf '%s\n' "$jm_out" | tr ',' '\n' | sed -n 's/^pid=\([0-9]*\)$/\1/p' | sort -un)
}

# One ls for all descriptors that we can read: those of our own processes.
jm_proc() {
    say tool proc
    # shellcheck disable=SC2012
    jm_out=$(ls -l /proc/[0-9]*/fd 2>/dev/null | sed -n -e 's#^/proc/\([0-9]*\)/fd:$#p \1#p' -e 's#.* -> socket:\[\([0-9]*\)\]$#i \1#p')
    jm_pid=
    while read -r jm_key jm_value; do
        case $jm_key in
            p) jm_pid=$jm_value ;;
            i)
                case $jm_inodes in
                    *" $jm_value "*)
                        say fd "$jm_pid $jm_value"
                        case " $jm_pids " in *" $jm_pid "*) ;; *) jm_pids="$jm_pids $jm_pid" ;; esac
                        ;;
                esac
                ;;
        esac
    done <<FDS
$jm_out
FDS
}

jm_process() {
    jm_start=$(jm_ticks "$1") || return 0
    say ticks "$1 $jm_start"
    jm_command=$(tr '\0\n\r' '   ' <"/proc/$1/cmdline" 2>/dev/null | cut -c1-300) && say cmdline "$1 $jm_command"
}
