# shellcheck shell=sh disable=SC2154 # some variables come from the libraries
# uses: lib/server lib/environment
# Run an installation step by step, without a login: start.sh runs this text from a file of the installation's directory.
# JM_NAME of the installation  JM_PREFIX  JM_TOOL  JM_NEW 1: PREFIX is made here
# JM_COUNT of the steps  JM_STEPS sh text: `jm_do ID KEY SOFT TEXT SHOWN COMMAND...` each, and `jm_kernel ID TEXT SHOWN`
# JM_UMASK of the account, from the environment
main() {
    umask 077
    jm_dir=$(jm_jobs)/$JM_NAME
    jm_ticks_own=$(jm_start $$)
    jm_began=$(jm_now)
    jm_number=0 jm_key='' jm_text=''
    : >"$jm_dir/steps"
    : >"$jm_dir/log"
    jm_tell running || exit 1
    cd -- "$HOME" || exit 1
    eval "$JM_STEPS"
    jm_key='' jm_text=''
    jm_complete
    jm_tell 'done'
}

jm_now() { date -u +%Y-%m-%dT%H:%M:%SZ; }

jm_tell() {
    jm_ended=''
    [ "$1" = running ] || jm_ended=$(jm_now)
    jm_put "$jm_dir/status" "state $1
name $JM_NAME
prefix $JM_PREFIX
tool $JM_TOOL
new $JM_NEW
node $(jm_node)
boot_id $(jm_boot_id)
pid $$
ticks $jm_ticks_own
started $jm_began
ended $jm_ended
key $jm_key
text $jm_text
number $jm_number
count $JM_COUNT
code ${2-}"
}

# jm_complete: remove the mark: from here on it is an environment like any other.
jm_complete() { [ "$JM_NEW" != 1 ] || rm -f -- "$JM_PREFIX/$jm_mark"; }

# jm_begin_step ID KEY TEXT SHOWN: status 1: an earlier run finished it.
jm_begin_step() {
    jm_number=$((jm_number + 1)) jm_id=$1 jm_key=$2 jm_text=$3
    printf 'begin %s %s\n' "$2" "$3" >>"$jm_dir/steps"
    printf '==> [%s/%s] %s\n' "$jm_number" "$JM_COUNT" "$3" >>"$jm_dir/log"
    if grep -qxF -- "$1" "$jm_dir/done"; then
        echo 'done already' >>"$jm_dir/log"
        printf 'end %s skip 0\n' "$2" >>"$jm_dir/steps"
        return 1
    fi
    printf '$ %s\n' "$4" >>"$jm_dir/log"
    jm_tell running
    jm_clock=$(date +%s)
}

# jm_end_step STATUS SOFT
jm_end_step() {
    jm_took=$(($(date +%s) - jm_clock))
    if [ "$1" = 0 ]; then
        echo "$jm_id" >>"$jm_dir/done"
        echo "end $jm_key done $jm_took" >>"$jm_dir/steps"
    elif [ "$2" = 1 ]; then
        echo "end $jm_key warn $jm_took" >>"$jm_dir/steps"
    else
        echo "==> failed with status $1" >>"$jm_dir/log"
        echo "end $jm_key failed $jm_took" >>"$jm_dir/steps"
        jm_tell failed "$1"
        exit 0
    fi
}

jm_do() {
    jm_begin_step "$1" "$2" "$4" "$5" || return 0
    jm_soft=$3
    shift 5
    (
        # The user's own settings for where packages are installed are not meant for an environment.
        umask "${JM_UMASK:-022}"
        unset JM_UMASK PYTHONHOME PYTHONPATH CONDA_PREFIX VIRTUAL_ENV
        LC_ALL=C.UTF-8 PYTHONNOUSERSITE=1 PIP_USER=0 PIP_REQUIRE_VIRTUALENV=0 PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1
        NO_COLOR=1 UV_NO_PROGRESS=1
        export LC_ALL PYTHONNOUSERSITE PIP_USER PIP_REQUIRE_VIRTUALENV PIP_NO_INPUT PIP_DISABLE_PIP_VERSION_CHECK NO_COLOR UV_NO_PROGRESS
        exec "$@"
    ) </dev/null >>"$jm_dir/log" 2>&1
    jm_end_step $? "$jm_soft"
}

# jm_kernel ID TEXT SHOWN: register the kernel by the script that `jupyman kernel add` runs.
jm_kernel() {
    jm_complete
    jm_begin_step "$1" kernel "$2" "$3" || return 0
    (umask "${JM_UMASK:-022}" && exec sh "$jm_dir/kernel") </dev/null >"$jm_dir/answer" 2>>"$jm_dir/log"
    jm_code=$?
    # It reports a failure in a line `error`; its status is 0 in any case.
    ! grep -q '^error ' "$jm_dir/answer" || jm_code=1
    sed -n 's/^\(step\|line\|error\|executable\) //p' "$jm_dir/answer" >>"$jm_dir/log"
    jm_end_step "$jm_code" 0
}
