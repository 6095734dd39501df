# shellcheck shell=sh
# uses: lib/server lib/lock lib/neighbours
# Start a Jupyter server and wait until it answers; or return the one that this session already has.
# JM_NAME session  JM_ID of this launch  JM_TIMEOUT seconds  JM_RECORD further lines of the record
# JM_PYTHON JM_PREFIX JM_ENV of the environment  JM_ACTIVATE sh text  JM_APP lab|notebook|server
# JM_DIR root directory ("" is home)  JM_PORTS candidates  JM_SOCK 1: a UNIX socket if the server can
# JM_SCOPE 1: in a systemd scope  JM_CUDA its CUDA_VISIBLE_DEVICES if JM_CUDA_SET is 1
# JM_CONFIG the server's configuration, JM_KERNEL that of ipykernels, JM_CHECK program: Python texts
# JM_DEBUGGER on|off|auto (on if nobody else has an account)
# Says: step, tick, listening (from then on the socket is its own), log, existing, record.*
main() {
    jm_umask=$(umask)
    umask 077
    jm_pid='' jm_began='' jm_runtime='' jm_locked='' jm_making='' jm_done='' jm_kept='' jm_keep_log=''
    jm_undo() {
        trap '' HUP INT TERM PIPE
        [ -z "$jm_done" ] || return 0
        if [ -n "$jm_pid" ]; then
            # An unfinished server has 5 s to end by itself; then its processes are killed.
            jm_end_server "$jm_pid" "$jm_began" "$jm_runtime" 5 1 >/dev/null 2>&1
            wait "$jm_pid" 2>/dev/null
        fi
        [ -z "$jm_runtime" ] || jm_drop_runtime "$jm_runtime"
        if [ -n "$jm_making" ]; then
            rm -f -- "$jm_dir/endpoint" "$jm_dir/jupyter_config.py" "$jm_dir/kernel_config.py" "$jm_dir/cancel"
            [ -n "$jm_kept" ] || rm -f -- "$jm_dir/token" "$jm_dir/cookie_secret"
            # The log of a server that failed is kept for the user; that of a cancelled one is not.
            [ -n "$jm_keep_log" ] || [ -e "$jm_dir/record" ] || rm -f -- "$jm_dir/log" "$jm_dir/log.old"
        fi
        if [ -n "$jm_locked" ]; then
            jm_unlock
            rmdir -- "$jm_dir" 2>/dev/null
        fi
        return 0
    }
    # The client left (its channel closed) or cancelled: nothing incomplete may stay.
    trap 'jm_undo; exit 0' HUP INT TERM PIPE

    # shellcheck disable=SC2153 # JM_DIR comes from jupyman, jm_dir is ours
    case "$HOME$JM_DIR" in *"$JM_NL"*) bail remote-failed "a directory's name holds a line break" "choose another --dir" ;; esac
    say user "$(jm_user)"
    jm_home
    jm_dir=$(jm_root)/$JM_NAME
    jm_safe_dir "$jm_dir"
    jm_lock
    jm_safe_dir "$jm_dir" # the last holder of the lock may have removed it
    jm_existing && return 0
    jm_prepare
    jm_failed=''
    for jm_end in $jm_free; do
        jm_attempt && return 0
        jm_failed=$jm_end
        say step "port $jm_end was taken meanwhile"
    done
    bail port-in-use "port ${jm_failed:-$JM_PORTS} was taken by another process during the start" "run it again, or choose another with --port"
}

# --- one launch at a time -----------------------------------------------------------------------------------------

# jm_existing: status 0 if the session already has a server, which is shown.
jm_existing() {
    jm_safe_file "$jm_dir/record"
    jm_now=$(jm_show "$jm_dir" | sed -n 's/^record.state //p')
    case $jm_now in
        alive)
            jm_done=1
            jm_unlock
            say existing 1
            jm_show "$jm_dir"
            return 0
            ;;
        not-listening | taken)
            jm_kept=1
            bail remote-failed "the server of session $JM_NAME (pid $(jm_get "$jm_dir/record" pid)) runs but does not listen" "jupyman kill $JM_NAME, then run it again"
            ;;
    esac
    # A dead one: its runtime directory and what its kernels started are removed; the new record replaces its own.
    if [ "$jm_now" = exited ]; then
        jm_old=$(jm_get "$jm_dir/record" runtime)
        if jm_runtime_ok "$jm_old"; then
            jm_sweep "$(jm_tree "$(jm_get "$jm_dir/record" pid)" "$(jm_get "$jm_dir/record" start_ticks)" "$jm_old")"
            jm_drop_runtime "$jm_old"
        fi
    fi
    return 1
}

# --- the files ----------------------------------------------------------------------------------------------------

jm_prepare() {
    # shellcheck disable=SC2088 # the tilde is text here, as the user wrote it
    case $JM_DIR in
        '' | '~') jm_cwd=$HOME ;;
        '~/'*) jm_cwd=$HOME/${JM_DIR#??} ;;
        /*) jm_cwd=$JM_DIR ;;
        *) jm_cwd=$HOME/$JM_DIR ;;
    esac
    [ -d "$jm_cwd" ] || bail remote-failed "there is no directory $jm_cwd" "make it on the host, or choose another --dir"
    [ -x "$jm_cwd" ] || bail remote-failed "no permission to enter $jm_cwd" "choose another --dir"
    [ -x "$JM_PYTHON" ] || bail env-missing "there is no Python at $JM_PYTHON" "see jupyman env ls"
    for jm_file in token cookie_secret jupyter_config.py kernel_config.py endpoint log log.old cancel; do jm_safe_file "$jm_dir/$jm_file"; done
    jm_making=1
    [ ! -f "$jm_dir/log" ] || mv -f -- "$jm_dir/log" "$jm_dir/log.old"
    # The token of a server that died by itself is kept, so that open tabs work with its successor.
    if jm_private "$jm_dir/token" && [ "$(tr -d '0-9a-f' <"$jm_dir/token" | wc -c)" -eq 0 ] && [ "$(wc -c <"$jm_dir/token")" -eq 48 ]; then
        jm_kept=1
        chmod 600 "$jm_dir/token"
    else
        jm_error=$({ rm -f -- "$jm_dir/token.new.$$" && od -An -N24 -tx1 /dev/urandom | tr -d ' \n' >"$jm_dir/token.new.$$" && mv -f -- "$jm_dir/token.new.$$" "$jm_dir/token"; } 2>&1) || {
            rm -f -- "$jm_dir/token.new.$$"
            jm_unwritable
        }
        [ "$(wc -c <"$jm_dir/token")" -eq 48 ] || bail remote-failed "cannot write $jm_dir/token" "make room on the host (disk full or quota?)"
    fi
    # shellcheck disable=SC2153 # it comes from jupyman
    jm_debugger=$JM_DEBUGGER
    if [ "$jm_debugger" = auto ]; then
        jm_debugger=off
        ! jm_alone || jm_debugger=on
    fi
    if [ "$jm_debugger" = on ]; then
        JM_CONFIG=$(printf '%s\n' "$JM_CONFIG" | sed 's/^_debugger = False /_debugger = True /')
    fi
    jm_put "$jm_dir/jupyter_config.py" "$JM_CONFIG" || jm_unwritable
    jm_put "$jm_dir/kernel_config.py" "$JM_KERNEL" || jm_unwritable
    # A UNIX socket's path may have 107 bytes (sys/un.h): the kernels' sockets need a short directory.
    jm_open=''
    for jm_tmp in /tmp "${TMPDIR:-/var/tmp}" /var/tmp; do
        [ -d "$jm_tmp" ] || continue
        if ! jm_firm "$jm_tmp"; then
            jm_open=$jm_tmp
            continue
        fi
        jm_runtime=$(mktemp -d "$jm_tmp/jm-XXXXXX" 2>/dev/null) || jm_runtime=''
        [ -z "$jm_runtime" ] || [ "${#jm_runtime}" -gt 40 ] || break
        [ -z "$jm_runtime" ] || rmdir "$jm_runtime"
        jm_runtime=''
    done
    [ -n "$jm_runtime$jm_open" ] || bail remote-failed "cannot make a directory in /tmp for the kernels' sockets" "make room in /tmp on the host"
    [ -n "$jm_runtime" ] || bail not-ours "another user can rename what lies in $jm_open" "ask the host's admin for chmod +t $jm_open"
    jm_runtime_ok "$jm_runtime" || bail not-ours "$jm_runtime is not as we made it" "look who changes files in /tmp of the host"
    # Check that the environment's Python runs and can bind a socket there; it prints the free ports.
    # shellcheck disable=SC2086 # a list of numbers
    jm_checked=$(printf '%s\n' "$JM_CHECK" | within 30 "$JM_PYTHON" - prepare "$jm_runtime" "$JM_APP" $JM_PORTS 2>"$jm_runtime/complaint") || {
        jm_error=$(tail -n 1 "$jm_runtime/complaint" | cut -c1-300)
        rm -f -- "$jm_runtime/complaint"
        bail remote-failed "$JM_PYTHON cannot start a server: ${jm_error:-no answer in 30 s}" "try it by hand on the host: $JM_PYTHON -V"
    }
    rm -f -- "$jm_runtime/complaint"
    jm_free=$(printf '%s\n' "$jm_checked" | sed -n 's/^free //p')
    # Nobody else can bind a socket in a directory of ours, or connect to it.
    if [ "${JM_SOCK-}" = 1 ] && [ -r /proc/net/unix ] && printf '%s\n' "$jm_checked" | grep -q '^sock yes'; then
        jm_free=$jm_runtime/server
    fi
    [ -n "$jm_free" ] || bail port-in-use "the port is taken: $(printf '%s\n' "$jm_checked" | sed -n 's/^taken //p' | head -n 3 | tr '\n' ' ')" "choose another with --port, or use --on-conflict next"
}

jm_unwritable() { bail remote-failed "cannot write in $jm_dir: ${jm_error##*: }" "make room on the host (disk full or quota?)"; }

# --- the server ---------------------------------------------------------------------------------------------------

jm_command() {
    case $JM_APP in
        notebook) jm_script=jupyter-notebook jm_module=notebook ;;
        server) jm_script=jupyter-server jm_module=jupyter_server ;;
        *) jm_script=jupyter-lab jm_module=jupyterlab ;;
    esac
    jm_bin=${JM_PYTHON%/*}
    # Notebook 6 without jupyter_server is a server, too.
    if [ "$JM_APP" = server ] && [ ! -f "$jm_bin/jupyter-server" ] && [ -f "$jm_bin/jupyter-notebook" ]; then
        jm_script=jupyter-notebook
    fi
}

# jm_attempt: one start on $jm_end, a port or the path of a UNIX socket. Status 1: the port was taken meanwhile.
jm_attempt() {
    jm_command
    jm_put "$jm_dir/endpoint" "$jm_end" || jm_unwritable
    case $jm_end in /*) jm_where="a private socket" ;; *) jm_where="port $jm_end" ;; esac
    say step "starting $jm_script on $jm_where" || { jm_undo; exit 0; }
    # lib/common sets LC_ALL=C for our own tools; the server gets the account's value.
    jm_locale=$(tr '\0' '\n' <"/proc/$$/environ" 2>/dev/null | sed -n 's/^LC_ALL=//p' | head -n 1)
    jm_shell="sh"
    ! command -v bash >/dev/null 2>&1 || jm_shell='bash --noprofile --norc'
    jm_hold=''
    ! command -v nohup >/dev/null 2>&1 || jm_hold="nohup"
    ! command -v setsid >/dev/null 2>&1 || jm_hold="setsid $jm_hold"
    if [ "${JM_SCOPE-}" = 1 ]; then
        # systemd-run registers the scope and then executes the command: the pid stays. It finds the user's manager by
        # XDG_RUNTIME_DIR.
        # shellcheck disable=SC2154 # jm_me comes from lib/server
        jm_scope="env XDG_RUNTIME_DIR=/run/user/$jm_me systemd-run --user --scope --quiet --collect --"
        # shellcheck disable=SC2086 # a list of words of ours
        if within 5 $jm_scope true >/dev/null 2>&1; then
            jm_hold="$jm_scope $jm_hold"
        else
            say step "systemd-run does not work here: the server may end with your last login"
            say scope failed
        fi
    fi
    # The script is run by the interpreter, because its first line may be wrong (moved environments, long paths). Unlike
    # with `-m`, the directory of notebooks is not on sys.path (it may hold a random.py).
    if [ -f "$jm_bin/$jm_script" ]; then
        set -- "$JM_PYTHON" "$jm_bin/$jm_script"
    else
        set -- "$JM_PYTHON" -c 'import sys; sys.path[:] = [p for p in sys.path if p]; import runpy; runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)' "$jm_module"
    fi
    (
        trap - HUP TERM PIPE
        if [ -n "$jm_locale" ]; then LC_ALL=$jm_locale; else unset LC_ALL; fi
        unset JUPYTER_TOKEN JUPYTER_TOKEN_FILE JUPYTER_PORT JUPYTER_PORT_RETRIES JUPYTER_IP XDG_RUNTIME_DIR PYTHONHOME
        JUPYTER_RUNTIME_DIR=$jm_runtime
        export JUPYTER_RUNTIME_DIR
        JM_START="unset XDG_RUNTIME_DIR
$JM_ACTIVATE
if [ \"\$1\" = 1 ]; then export CUDA_VISIBLE_DEVICES=\"\$2\"; fi
umask \"\$3\"; cd -- \"\$4\" || exit 1; shift 4
ulimit -S -n \"\$(ulimit -H -n)\" 2>/dev/null
exec \"\$@\""
        # Each exec keeps the process: the pid of this subshell becomes the server's.
        # shellcheck disable=SC2086 # two lists of words of ours
        exec $jm_hold $jm_shell -c "$JM_START" jupyman "${JM_CUDA_SET:-0}" "${JM_CUDA-}" "$jm_umask" "$jm_cwd" "$@" "--config=$jm_dir/jupyter_config.py"
    ) </dev/null >"$jm_dir/log" 2>&1 &
    jm_pid=$!
    jm_began=$(jm_start "$jm_pid")
    say step "waiting for Jupyter to answer (pid $jm_pid)" || { jm_undo; exit 0; }
    jm_until=$(($(date +%s) + JM_TIMEOUT))
    jm_beat=$(date +%s)
    while :; do
        if ! jm_alive "$jm_pid" "$jm_began"; then
            wait "$jm_pid"
            jm_status=$?
            jm_keep_log=1
            if grep -qE 'port [0-9]+ is not available|no available port could be found|already in use' "$jm_dir/log" &&
                printf '%s\n' "$JM_CHECK" | within 30 "$JM_PYTHON" - prepare "$jm_runtime" "$JM_APP" "$jm_end" 2>/dev/null | grep -q '^taken'; then
                jm_pid=''
                return 1
            fi
            jm_tail 20 "$jm_dir/log"
            bail server-exited "Jupyter ended at once (status $jm_status): $(jm_reason)" "the last lines of its log are above; check environment $JM_ENV: $JM_PYTHON -m jupyter --version"
        fi
        jm_json=''
        for jm_file in "$jm_runtime/jpserver-$jm_pid.json" "$jm_runtime/nbserver-$jm_pid.json"; do
            [ ! -s "$jm_file" ] || jm_json=$jm_file
        done
        if [ -n "$jm_json" ] && jm_serves "$jm_pid" "$jm_end"; then break; fi
        if [ -e "$jm_dir/cancel" ] && [ "$(cat "$jm_dir/cancel")" = "$JM_ID" ]; then bail interrupted "the launch was cancelled" "nothing half-made was left behind"; fi
        jm_clock=$(date +%s)
        if [ "$jm_clock" -ge "$jm_until" ]; then
            jm_keep_log=1
            jm_tail 20 "$jm_dir/log"
            bail launch-timeout "Jupyter did not answer within $JM_TIMEOUT s, so it was stopped"
        fi
        if [ "$jm_clock" != "$jm_beat" ]; then
            jm_beat=$jm_clock
            say tick "$((jm_until - jm_clock))" || { jm_undo; exit 0; }
        fi
        jm_nap 0.05
    done
    say listening "$jm_end" || { jm_undo; exit 0; }
    jm_answers
    jm_record
    return 0
}

# jm_reason: the last line of the log that is not part of a traceback.
jm_reason() { jm_redact <"$jm_dir/log" | grep -v '^[[:space:]]' | grep -v '^$' | tail -n 1 | cut -c1-200; }

# jm_answers: require status 403 without the token and 200 with it; the user's own configuration may have opened the server.
jm_answers() {
    jm_asked=$(printf '%s\n' "$JM_CHECK" | within 30 "$JM_PYTHON" - answers "$jm_end" "$jm_dir/token" 2>/dev/null)
    jm_keep_log=1
    case $jm_asked in
        403\ 200 | 401\ 200) ;;
        2??\ * | 3??\ *)
            jm_tail 20 "$jm_dir/log"
            bail server-exited "the server accepted a request without a token, so it was stopped" "look for token or password settings in ~/.jupyter on the host"
            ;;
        *)
            jm_tail 20 "$jm_dir/log"
            bail server-exited "the server does not answer as it should (without and with token: HTTP ${jm_asked:-no answer}), so it was stopped" "look at the settings in ~/.jupyter on the host"
            ;;
    esac
}

jm_record() {
    case $jm_end in /*) jm_line="sock $jm_end" ;; *) jm_line="port $jm_end" ;; esac
    jm_counter=$(jm_memory_events "$jm_pid")
    jm_put "$jm_dir/record" "version 1
name $JM_NAME
id $JM_ID
pid $jm_pid
start_ticks $jm_began
boot_id $(jm_boot_id)
node $(jm_node)
$jm_line
base_url /
app $JM_APP
env $JM_PREFIX
root_dir $jm_cwd
runtime $jm_runtime
memory_events $jm_counter
oom_kills $(jm_oom_kills "$jm_counter")
started $(date -u +%Y-%m-%dT%H:%M:%SZ)
python $JM_PYTHON
rereads token
debugger $jm_debugger
jupyter $(sed -n 's/.*"version": *"\([^"]*\)".*/\1/p' "$jm_json" | head -n 1)
$JM_RECORD" || jm_unwritable
    jm_done=1 # from here on a lost link leaves a complete session
    rm -f -- "$jm_dir/endpoint"
    jm_unlock
    jm_show "$jm_dir"
    return 0
}
