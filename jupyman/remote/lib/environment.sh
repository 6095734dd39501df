# shellcheck shell=sh disable=SC2154
# uses: lib/server
# Functions for environments and their installations.
# An installation's directory is ~/.local/state/jupyman/<node>/.environments/<name>: `status` (lines `KEY VALUE`), `steps`
# (what began and ended in this run), `done` (ids of finished steps), `log`, `wish`.

# A file in an environment that is not finished. The probe looks for it: nothing is run from there.
jm_mark=.jupyman-incomplete

jm_jobs() { printf '%s\n' "$(jm_root)/.environments"; }

# jm_job_state DIR: sets jm_state: running, done, failed, interrupted (its process is gone), elsewhere (it runs on another
# machine with the same home, so nothing is known about it here), or none.
jm_job_state() {
    jm_state=none
    jm_private "$1/status" || return 0
    jm_state=$(jm_get "$1/status" state)
    [ "$jm_state" = running ] || return 0
    if [ "$(jm_get "$1/status" node)" != "$(jm_node)" ]; then
        jm_state=elsewhere
    elif [ "$(jm_get "$1/status" boot_id)" != "$(jm_boot_id)" ] || ! jm_alive "$(jm_get "$1/status" pid)" "$(jm_get "$1/status" ticks)"; then
        # It may have ended normally just after its state was read.
        jm_state=$(jm_get "$1/status" state)
        [ "$jm_state" != running ] || jm_state=interrupted
    fi
}

# jm_elsewhere PREFIX NAME: status 0 if another machine with the same home is making it now; sets jm_there, its name.
jm_elsewhere() {
    jm_there=$(jm_get "$1/$jm_mark" node)
    case $jm_there in "$(jm_node)" | '' | */* | .*) return 1 ;; esac
    [ "$(jm_get "$HOME/.local/state/jupyman/$jm_there/.environments/$2/status" state)" = running ]
}

# jm_claim DIR: take its lock; status 1: another process has had it for 20 s.
jm_claim() {
    jm_tries=0
    until mkdir -- "$1/lock" 2>/dev/null; do
        jm_holder=$(cat "$1/lock/owner" 2>/dev/null)
        # shellcheck disable=SC2086 # split into fields on purpose
        set -- "$1" $jm_holder
        # Just made, or its maker died in between: wait two seconds.
        if [ $# -lt 4 ]; then jm_old=$((jm_tries >= 20)); else
            jm_old=0
            [ "$4" = "$(jm_boot_id)" ] && jm_alive "$2" "$3" || jm_old=1
        fi
        # Renaming is atomic: one of several processes gets it. What was renamed must still be what was judged.
        if [ "$jm_old" = 1 ] && mv -- "$1/lock" "$1/lock.stale.$$" 2>/dev/null; then
            if [ "$(cat "$1/lock.stale.$$/owner" 2>/dev/null)" = "$jm_holder" ]; then rm -rf -- "$1/lock.stale.$$"; else
                mv -- "$1/lock.stale.$$" "$1/lock" 2>/dev/null
            fi
        fi
        [ "$jm_tries" -lt 200 ] || return 1
        jm_nap 0.1
        jm_tries=$((jm_tries + 1))
    done
    jm_claimed=$1
    jm_put "$1/lock/owner" "$$ $(jm_start $$) $(jm_boot_id)"
}
jm_unclaim() {
    [ -z "${jm_claimed-}" ] || rm -rf -- "$jm_claimed/lock"
    jm_claimed=''
}

# jm_detached: sets jm_hold, the words in front of a command that let it outlive its login.
jm_detached() {
    jm_hold=''
    ! command -v nohup >/dev/null 2>&1 || jm_hold='nohup'
    ! command -v setsid >/dev/null 2>&1 || jm_hold="setsid $jm_hold"
    [ "${JM_SCOPE-}" = 1 ] || return 0
    # systemd-run registers the scope and then executes the command: the pid stays. It finds the user's manager by
    # XDG_RUNTIME_DIR.
    jm_scope="env XDG_RUNTIME_DIR=/run/user/$jm_me systemd-run --user --scope --quiet --collect --"
    # shellcheck disable=SC2086 # a list of words of ours
    ! within 5 $jm_scope true >/dev/null 2>&1 || jm_hold="$jm_scope $jm_hold"
}

# jm_own_env PREFIX: require an environment of this account, not a link, a root of conda or the home; sets jm_real.
jm_own_env() {
    [ ! -L "$1" ] || bail not-ours "$1 is a symbolic link" "name the environment that it points to"
    [ -d "$1" ] || bail env-missing "there is no directory $1" "see jupyman env ls"
    jm_real=$(cd -P -- "$1" 2>/dev/null && pwd) || bail remote-failed "cannot enter $1" "check its permissions on the host"
    jm_look "$jm_real" || bail remote-failed "cannot look at $1" "check its permissions on the host"
    [ "$jm_uid" = "$jm_me" ] || bail not-ours "$1 belongs to uid $jm_uid, not to you" "ask its owner"
    case "$(cd -P -- "$HOME" && pwd)/" in "$jm_real"/*) bail usage "$1 holds your home directory" "name an environment" ;; esac
    if [ -d "$jm_real/condabin" ] || [ -d "$jm_real/envs" ] || [ -d "$jm_real/pkgs" ] || [ -e "$jm_real/bin/conda" ]; then
        bail usage "$1 is an installation of conda, not one of its environments" "remove it by hand, if you mean that"
    fi
    [ -d "$jm_real/conda-meta" ] || [ -f "$jm_real/pyvenv.cfg" ] || [ -f "$jm_real/$jm_mark" ] ||
        bail usage "$1 is no environment" "see jupyman env ls"
}

# jm_users PREFIX REAL: facts `use PID UID KIND` of the processes that run its programs by either path.
jm_users() {
    grep -lF -e "$1/" -e "$2/" /proc/[0-9]*/cmdline 2>/dev/null | while IFS= read -r jm_file; do
        jm_words=$(tr '\0' ' ' <"$jm_file" 2>/dev/null | cut -c1-2000)
        case $jm_words in "$1"/* | "$2"/*) ;; *) continue ;; esac
        jm_p=${jm_file#/proc/} jm_p=${jm_p%/cmdline} jm_kind=process
        case $jm_words in *ipykernel*) jm_kind=kernel ;; *jupyter*) jm_kind=server ;; esac
        jm_whose=$(jm_owner "$jm_p")
        [ -z "$jm_whose" ] || say use "$jm_p $jm_whose $jm_kind"
    done
}
