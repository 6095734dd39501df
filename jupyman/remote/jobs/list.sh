# shellcheck shell=sh disable=SC2154 # some variables come from the libraries
# uses: lib/server lib/environment
# The installations of this account, including those of other machines with the same home. Read-only.
# Says: job.name, .state, .node, .prefix, .tool, .new, .text, .number, .count, .started
main() {
    for jm_dir in "$HOME"/.local/state/jupyman/*/.environments/*; do
        if [ ! -d "$jm_dir" ] || [ -L "$jm_dir" ]; then continue; fi
        jm_job_state "$jm_dir"
        [ "$jm_state" != none ] || continue
        say job.name "${jm_dir##*/}"
        say job.state "$jm_state"
        for jm_key in node prefix tool new text number count started; do say "job.$jm_key" "$(jm_get "$jm_dir/status" "$jm_key")"; done
    done
}
