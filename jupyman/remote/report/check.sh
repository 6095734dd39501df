# shellcheck shell=sh
# uses: lib/server lib/gpus
# Everything that `check` asks of a host, at once and in one trip: the scripts probe, find, ports and orphans.
# JM_DO_PROBE JM_DO_FIND JM_DO_PORTS JM_DO_ORPHANS their texts, and the variables of each.
# Says: what they say; part servers, part ports, part orphans when that script is through.
main() { jm_bounded "$((JM_GPU_TIMEOUT + 5))" jm_all; }

jm_all() {
    exec 2>/dev/null
    { jm_other "$JM_DO_FIND"; say part servers; } &
    { jm_other "$JM_DO_PORTS"; say part ports; } &
    { jm_other "$JM_DO_ORPHANS"; say part orphans; } &
    # In a shell of its own: they use the same names.
    (
        eval "$JM_DO_PROBE"
        jm_head
        jm_parts
    ) &
    wait
}

# jm_other SCRIPT: run it; each of its lines is written at once, or those of two scripts would mix.
jm_other() {
    (
        eval "$1"
        main
    ) </dev/null | while IFS= read -r jm_line || [ -n "$jm_line" ]; do printf '%s\n' "$jm_line"; done
}
