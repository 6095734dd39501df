# shellcheck shell=sh
# The output of nvidia-smi, and the owners and ancestors of the processes on the GPUs.
# JM_GPU_TIMEOUT seconds for each call of nvidia-smi; they run at once.
# Says: gpu.status .row .minimal .header_status .header .list .apps_status .app .user .uid .link .kernel .driver_file

jm_gpus() {
    jm_find_smi || return 0
    jm_gpu_header &
    jm_gpu_apps &
    jm_gpu_rows
    wait
}

# jm_gpu_use: only the processes on the GPUs, for repeated checks.
jm_gpu_use() {
    jm_find_smi || return 0
    jm_gpu_apps &
    jm_gpu_rows
    wait
}

jm_find_smi() {
    jm_smi=$(command -v nvidia-smi) || jm_smi=
    for jm_one in /usr/lib/wsl/lib/nvidia-smi /usr/local/nvidia/bin/nvidia-smi; do
        [ -n "$jm_smi" ] || [ ! -x "$jm_one" ] || jm_smi=$jm_one
    done
    [ -z "$jm_smi" ] || return 0
    say gpu.status 127
    [ ! -e /proc/driver/nvidia/version ] || say gpu.driver_file yes
    return 1
}

jm_gpu_header() {
    jm_out=$(within "$JM_GPU_TIMEOUT" "$jm_smi" 2>&1)
    say gpu.header_status "$?"
    printf '%s\n' "$jm_out" | head -n 12 | lines gpu.header
}

jm_gpu_rows() {
    jm_query 'index,uuid,name,driver_version,memory.total,memory.used,utilization.gpu,compute_cap,mig.mode.current'
    case $jm_status:$jm_out in
        2:* | *'not a valid field'*) # one unknown field fails the whole query (old drivers have no compute_cap)
            say gpu.minimal yes
            jm_query 'index,uuid,name,driver_version,memory.total,memory.used'
            ;;
    esac
    say gpu.status "$jm_status"
    printf '%s\n' "$jm_out" | head -n 64 | cut -c1-1000 | lines gpu.row
    # Only this list shows the instances of a card in MIG mode.
    case $jm_out in *Enabled*) within "$JM_GPU_TIMEOUT" "$jm_smi" -L | head -n 500 | cut -c1-300 | lines gpu.list ;; esac
}

jm_query() {
    jm_out=$(within "$JM_GPU_TIMEOUT" "$jm_smi" "--query-gpu=$1" --format=csv,noheader,nounits 2>&1)
    jm_status=$?
}

jm_gpu_apps() {
    jm_out=$(within "$JM_GPU_TIMEOUT" "$jm_smi" --query-compute-apps=gpu_uuid,pid,process_name,used_gpu_memory --format=csv,noheader,nounits)
    say gpu.apps_status "$?"
    printf '%s\n' "$jm_out" | head -n 500 | cut -c1-1000 | lines gpu.app
    jm_pids=$(printf '%s\n' "$jm_out" | sed -n 's/^[^,]*, *\([0-9][0-9]*\),.*/\1/p' | sort -u | head -n 200 | tr '\n' ',')
    jm_pids=${jm_pids%,}
    [ -n "$jm_pids" ] || return 0
    # "user" alone is cut at eight characters.
    { ps -o pid= -o user:64= -p "$jm_pids" || ps -o pid= -o user= -p "$jm_pids"; } | lines gpu.user
    jm_ancestors "$jm_pids"
}

# jm_ancestors PID,PID...: their owners, their ancestors, and the kernels among these: the name of the connection file in a
# kernel's command line holds its id.
jm_ancestors() {
    jm_links=$(cat /proc/[0-9]*/stat 2>/dev/null | awk -v wanted="$1" '
        /\) / { pid = $1; line = $0; sub(/^.*\) /, "", line); split(line, f, " "); parent[pid] = f[2] }
        END {
            count = split(wanted, start, ",")
            for (i = 1; i <= count; i++)
                for (pid = start[i]; (pid in parent) && !(pid in seen) && pid > 1; pid = parent[pid]) {
                    seen[pid] = 1
                    print pid, parent[pid]
                }
        }' | head -n 1000)
    [ -n "$jm_links" ] || return 0
    printf '%s\n' "$jm_links" | lines gpu.link
    # shellcheck disable=SC2046 # numbers, split on purpose
    set -- $(printf '%s\n' "$1" | tr ',' '\n' | sed 's|.*|/proc/&/status|')
    grep '^Uid:' /dev/null "$@" 2>/dev/null | sed -n 's|^/proc/\([0-9]*\)/status:Uid:[^0-9]*\([0-9]*\).*|\1 \2|p' | lines gpu.uid
    # shellcheck disable=SC2046 # as above
    set -- $(printf '%s\n' "$jm_links" | sed 's|^\([0-9]*\) .*|/proc/\1/cmdline|')
    for jm_one in $(grep -lF kernel- "$@" 2>/dev/null | head -n 100); do
        jm_file=$(jm_connection "$jm_one")
        jm_one=${jm_one#/proc/}
        [ -z "$jm_file" ] || say gpu.kernel "${jm_one%/cmdline} $jm_file"
    done
}
