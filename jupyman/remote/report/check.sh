# shellcheck shell=sh
# uses: lib/server lib/gpus
# Everything that `check` reports, in one round trip: the scripts probe, find, ports and orphans, at the same time.
# JM_DO_PROBE JM_DO_FIND JM_DO_PORTS JM_DO_ORPHANS their texts, and the variables of each.
# Says: their facts; part servers, part ports, part orphans when that script has finished.
main() { jm_bounded "$((JM_GPU_TIMEOUT + 5))" jm_all; }

jm_all() {
    exec 2>/dev/null
    { jm_other "$JM_DO_FIND"; say part servers; } &
    { jm_other "$JM_DO_PORTS"; say part ports; } &
    { jm_other "$JM_DO_ORPHANS"; say part orphans; } &
    # Each in a subshell, because they use the same names.
    (
        eval "$JM_DO_PROBE"
        jm_head
        jm_parts
    ) &
    wait
}

# jm_other SCRIPT: run it; each line is written in one piece, or lines of two scripts would mix.
jm_other() {
    (
        eval "$1"
        main
    ) </dev/null | while IFS= read -r jm_line || [ -n "$jm_line" ]; do printf '%s\n' "$jm_line"; done
}
