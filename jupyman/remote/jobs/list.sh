# shellcheck shell=sh disable=SC2154 # some variables come with JM_SERVER and JM_ENVIRONMENT
# The installations of this account, also those of other machines with the same home. Reads only.
# JM_SERVER JM_ENVIRONMENT libraries
# Says: job.name, .state, .node, .prefix, .tool, .new, .text, .number, .count, .started
main() {
    eval "$JM_SERVER"
    eval "$JM_ENVIRONMENT"
    for jm_dir in "$HOME"/.local/state/jupyman/*/.environments/*; do
        if [ ! -d "$jm_dir" ] || [ -L "$jm_dir" ]; then continue; fi
        jm_job_state "$jm_dir"
        [ "$jm_state" != none ] || continue
        say job.name "${jm_dir##*/}"
        say job.state "$jm_state"
        for jm_key in node prefix tool new text number count started; do say "job.$jm_key" "$(jm_get "$jm_dir/status" "$jm_key")"; done
    done
}
