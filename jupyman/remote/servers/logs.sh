# shellcheck shell=sh
# uses: lib/server
# Lines of a server's log, tokens redacted.
# JM_NAME session  JM_DIRECTORY of it, or ""  JM_LINES how many  JM_FOLLOW 1: go on until the channel closes
# Not by `tail -f`, which would notice the closed channel only at the next line and stay on the host until then.
# Says: line, tick
main() {
    jm_dir=${JM_DIRECTORY:-$(jm_root)/$JM_NAME}
    jm_log=$jm_dir/log
    jm_private "$jm_log" || fail usage "session $JM_NAME has no log on this host ($jm_log)" "a server that jupyman did not start writes its log elsewhere"
    trap 'exit 0' HUP INT TERM PIPE
    jm_size=$(wc -c <"$jm_log")
    # Counted before they are printed: a line written meanwhile is printed twice rather than never.
    jm_last=$(wc -l <"$jm_log")
    if [ "$JM_FOLLOW" = 1 ]; then
        [ "$JM_LINES" -eq 0 ] || jm_between $((jm_last - JM_LINES + 1)) "$jm_last"
    else
        tail -n "$JM_LINES" "$jm_log" | jm_redact | lines line
        return 0
    fi
    jm_turn=0
    while :; do
        jm_nap 0.25
        jm_turn=$((jm_turn + 1))
        [ $((jm_turn % 8)) -ne 0 ] || say tick "$jm_turn" || exit 0
        [ -f "$jm_log" ] || { [ -d "$jm_dir" ] && continue; return 0; }
        jm_now=$(wc -c <"$jm_log" 2>/dev/null) || continue
        [ "$jm_now" -ne "$jm_size" ] || continue
        [ "$jm_now" -ge "$jm_size" ] || jm_last=0 # a new server, a new log
        jm_size=$jm_now
        jm_total=$(wc -l <"$jm_log")
        [ "$jm_total" -gt "$jm_last" ] || continue
        jm_between $((jm_last + 1)) "$jm_total"
        jm_last=$jm_total
    done
}

jm_between() {
    jm_first=$1
    [ "$jm_first" -gt 0 ] || jm_first=1
    [ "$2" -ge "$jm_first" ] || return 0
    sed -n "${jm_first},${2}p" "$jm_log" | jm_redact | lines line
}
