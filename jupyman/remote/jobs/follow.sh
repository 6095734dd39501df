# shellcheck shell=sh disable=SC2154 # some variables come from the libraries
# uses: lib/server lib/environment
# The progress and the log of an installation.
# JM_NAME of the installation  JM_LINES of its log first  JM_FOLLOW 1: until it ends
# JM_BRIEF 1: of its log only the newest line now and then
# Says: event (begin KEY TEXT | end KEY STATE SECONDS), line, last, tick; at the end state, code, prefix, answer, log
main() {
    # shellcheck disable=SC2153 # JM_NAME comes from jupyman
    jm_dir=$(jm_jobs)/$JM_NAME
    jm_private "$jm_dir/status" || fail usage "no installation is called $JM_NAME on this host" "see jupyman env ls"
    trap 'exit 0' HUP INT TERM PIPE
    jm_event=0 jm_turn=0 jm_last='' jm_at=0
    if [ "$JM_BRIEF" != 1 ] && jm_private "$jm_dir/log"; then
        jm_at=$(($(wc -l <"$jm_dir/log") - JM_LINES))
        [ "$jm_at" -gt 0 ] || jm_at=0
    fi
    while :; do
        # First whether it still runs, then its output: so nothing of a finished one is missed.
        jm_job_state "$jm_dir"
        jm_news
        if [ "$jm_state" != running ] || [ "$JM_FOLLOW" != 1 ]; then break; fi
        jm_nap 0.25
        jm_turn=$((jm_turn + 1))
        [ $((jm_turn % 8)) -ne 0 ] || say tick "$jm_turn" || exit 0
    done
    say state "$jm_state"
    for jm_name in code prefix node key text number count; do say "$jm_name" "$(jm_get "$jm_dir/status" "$jm_name")"; done
    [ "$JM_BRIEF" = 1 ] || return 0
    ! jm_private "$jm_dir/answer" || head -c 200000 <"$jm_dir/answer" | lines answer
    ! jm_private "$jm_dir/log" || tail -n 60 "$jm_dir/log" | jm_redact | lines log
}

jm_news() {
    jm_total=$(wc -l <"$jm_dir/steps" 2>/dev/null) || jm_total=0
    if [ "$jm_total" -gt "$jm_event" ]; then
        sed -n "$((jm_event + 1)),${jm_total}p" "$jm_dir/steps" | lines event
        jm_event=$((jm_total))
    fi
    jm_private "$jm_dir/log" || return 0
    if [ "$JM_BRIEF" = 1 ]; then
        jm_line=$(tail -c 400 "$jm_dir/log" | tr '\r' '\n' | sed '/^[[:space:]]*$/d' | tail -n 1 | jm_redact)
        [ "$jm_line" = "$jm_last" ] || say last "$jm_line"
        jm_last=$jm_line
        return 0
    fi
    jm_total=$(wc -l <"$jm_dir/log")
    # The last line of a finished one may have no line break.
    [ "$jm_state" = running ] || jm_total=$((jm_total + 1))
    if [ "$jm_total" -gt "$jm_at" ]; then
        sed -n "$((jm_at + 1)),${jm_total}p" "$jm_dir/log" | jm_redact | lines line
        jm_at=$((jm_total))
    fi
}
