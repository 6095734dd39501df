# shellcheck shell=sh disable=SC2154 # some variables come from the libraries
# uses: lib/server lib/environment
# Start an installation: write what it needs into its directory, and leave it running when the login ends.
# JM_NAME of the installation  JM_PREFIX  JM_NEW 1: PREFIX must be made
# JM_CONDA 1: as an empty environment of conda  JM_MAKE id of the step that makes it  JM_RUN text of the runner
# JM_KERNEL text of the script that adds the kernel, or ""  JM_WISH JSON  JM_FILE name and JM_TEXT content of the
# user's file, or ""  JM_SCOPE 1: in a systemd scope
# Says: existing (it runs already), resumed, begun
main() {
    jm_umask=$(umask)
    umask 077
    jm_made=''
    # shellcheck disable=SC2317 # called by bail
    jm_undo() {
        trap '' HUP INT TERM PIPE
        [ -z "$jm_made" ] || rm -rf -- "$JM_PREFIX"
        jm_unclaim
    }
    trap 'jm_undo; exit 0' HUP INT TERM PIPE
    case "$HOME$JM_PREFIX" in *"$JM_NL"*) bail remote-failed "a directory's name holds a line break" "choose another --dir" ;; esac
    jm_home
    jm_safe_dir "$(jm_jobs)"
    jm_dir=$(jm_jobs)/$JM_NAME
    jm_safe_dir "$jm_dir"
    jm_claim "$jm_dir" || bail remote-failed "another installation of $JM_NAME is just beginning" "run it again in a moment"
    for jm_file in status steps 'done' log wish run kernel answer runner environment.yml requirements.txt; do jm_safe_file "$jm_dir/$jm_file"; done
    jm_job_state "$jm_dir"
    if [ "$jm_state" = running ]; then
        say existing 1
        jm_unclaim
        return 0
    fi
    [ "$JM_NEW" != 1 ] || jm_place
    if [ -z "${jm_resumed-}" ]; then rm -f -- "$jm_dir/done"; else say resumed 1; fi
    rm -f -- "$jm_dir/answer" "$jm_dir/status" "$jm_dir/steps" "$jm_dir/log.old"
    [ ! -f "$jm_dir/log" ] || mv -f -- "$jm_dir/log" "$jm_dir/log.old"
    for jm_pair in run:JM_RUN kernel:JM_KERNEL wish:JM_WISH; do
        eval "jm_text=\$${jm_pair#*:}"
        jm_put "$jm_dir/${jm_pair%%:*}" "$jm_text" || jm_unwritable
    done
    [ -z "$JM_FILE" ] || jm_put "$jm_dir/$JM_FILE" "$JM_TEXT" || jm_unwritable
    : >>"$jm_dir/done" || bail remote-failed "cannot write in $jm_dir" "make room on the host (disk full or quota?)"
    jm_detached
    (
        trap - HUP TERM PIPE
        JM_UMASK=$jm_umask
        export JM_UMASK
        # Each exec keeps the process. The script's text is in a private file, not on its command line.
        # shellcheck disable=SC2086 # a list of words of ours
        exec $jm_hold sh "$jm_dir/run"
    ) </dev/null >"$jm_dir/runner" 2>&1 &
    jm_pid=$!
    jm_began=$(jm_start "$jm_pid")
    jm_tries=0
    until jm_private "$jm_dir/status"; do
        if ! jm_alive "$jm_pid" "$jm_began" || [ "$jm_tries" -ge 200 ]; then
            ! jm_private "$jm_dir/status" || break
            bail remote-failed "the installation does not start: $(tail -n 1 "$jm_dir/runner" 2>/dev/null | cut -c1-200)" "make room on the host (disk full or quota?)"
        fi
        jm_nap 0.05
        jm_tries=$((jm_tries + 1))
    done
    jm_made='' # from here on the installation runs on when the link is lost
    jm_unclaim
    say begun 1
}

jm_unwritable() { bail remote-failed "cannot write in $jm_dir: ${jm_error##*: }" "make room on the host (disk full or quota?)"; }

# jm_place: make the prefix with the mark in it, or find our own unfinished one.
jm_place() {
    [ ! -L "$JM_PREFIX" ] || bail not-ours "$JM_PREFIX is a symbolic link" "find out who made it, or choose another name"
    if [ -e "$JM_PREFIX" ]; then
        [ -f "$JM_PREFIX/$jm_mark" ] || bail usage "$JM_PREFIX exists already" "choose another name, or jupyman env rm $JM_NAME first"
        jm_own_env "$JM_PREFIX"
        ! jm_elsewhere "$JM_PREFIX" "$JM_NAME" ||
            bail usage "$JM_PREFIX is being made on $jm_there, which has the same home" "name that machine itself in ~/.ssh/config"
        if grep -qxF -- "$JM_MAKE" "$jm_dir/done" 2>/dev/null; then
            jm_resumed=1
            return 0
        fi
        ! grep -q '^make-' "$jm_dir/done" 2>/dev/null ||
            bail usage "$JM_NAME was begun with other options" "run jupyman env create $JM_NAME without options to go on, or jupyman env rm $JM_NAME"
        # No step was finished: what is there is a part of the first step.
        jm_error=$(rm -rf -- "$JM_PREFIX" 2>&1) || bail remote-failed "cannot remove $JM_PREFIX: ${jm_error##*: }" "mend its permissions on the host"
    fi
    jm_error=$({ umask "$jm_umask" && mkdir -p -- "${JM_PREFIX%/*}" && mkdir -- "$JM_PREFIX"; } 2>&1) ||
        bail remote-failed "cannot make $JM_PREFIX: ${jm_error##*: }" "choose a folder of your own with --dir"
    jm_made=1
    jm_put "$JM_PREFIX/$jm_mark" "node $(jm_node)
name $JM_NAME" || bail remote-failed "cannot write in $JM_PREFIX: ${jm_error##*: }" "make room on the host (disk full or quota?)"
    [ "$JM_CONDA" != 1 ] || { umask "$jm_umask" && mkdir -- "$JM_PREFIX/conda-meta" && : >"$JM_PREFIX/conda-meta/history" && umask 077; } ||
        bail remote-failed "cannot write in $JM_PREFIX" "make room on the host (disk full or quota?)"
}
