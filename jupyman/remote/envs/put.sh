# shellcheck shell=sh disable=SC2154 # some variables come from the libraries
# uses: lib/server lib/environment
# Receive a file on stdin, from where an earlier upload of the same content was interrupted.
# JM_SHA its SHA-256  JM_SIZE bytes  JM_FILE its name
# Says: feed N (then the bytes from N on are read from stdin), path, checking
# The bytes come only after `feed`: the shell, which also reads this text from stdin, has consumed none of them by then.
exec 3<&0
main() {
    umask 077
    # shellcheck disable=SC2317 # called by bail
    jm_undo() { jm_unclaim; }
    trap 'jm_unclaim; exit 0' HUP INT TERM PIPE
    jm_home
    jm_safe_dir "$(jm_root)/.uploads"
    # Uploads that nobody continued.
    find "$(jm_root)/.uploads" -mindepth 1 -maxdepth 1 -mtime +14 -exec rm -rf -- {} + 2>/dev/null
    jm_dir=$(jm_root)/.uploads/$JM_SHA
    jm_safe_dir "$jm_dir"
    jm_free_lock
    jm_claim "$jm_dir" || bail remote-failed "another upload of $JM_FILE is under way" "wait for it, then run this again"
    jm_safe_file "$jm_dir/$JM_FILE"
    jm_safe_file "$jm_dir/part"
    if [ -f "$jm_dir/$JM_FILE" ]; then
        if [ "$(jm_sum "$jm_dir/$JM_FILE")" = "$JM_SHA" ]; then
            say path "$jm_dir/$JM_FILE"
            jm_unclaim
            return 0
        fi
        rm -f -- "$jm_dir/$JM_FILE"
    fi
    : >>"$jm_dir/part" || bail remote-failed "cannot write in $jm_dir" "make room on the host (disk full or quota?)"
    jm_have=$(($(wc -c <"$jm_dir/part")))
    if [ "$jm_have" -gt "$JM_SIZE" ]; then
        : >"$jm_dir/part"
        jm_have=0
    fi
    jm_left=$(within 3 df -Pk -- "$jm_dir" 2>/dev/null | awk 'NR == 2 { print $(NF - 2) }')
    case $jm_left in '' | *[!0-9]*) ;; *)
        [ $((jm_left)) -ge $(((JM_SIZE - jm_have) / 1024)) ] || bail remote-failed "only $((jm_left / 1024)) MiB are free for $JM_FILE" "make room in your home on the host"
        ;;
    esac
    say feed "$jm_have"
    jm_error=$(cat <&3 2>&1 >>"$jm_dir/part") || bail remote-failed "cannot write $JM_FILE: ${jm_error##*: }" "make room on the host (disk full or quota?)"
    jm_have=$(($(wc -c <"$jm_dir/part")))
    if [ "$jm_have" -lt "$JM_SIZE" ]; then
        bail remote-failed "only $jm_have of $JM_SIZE bytes of $JM_FILE have arrived" "run it again: it continues where it was interrupted"
    fi
    say checking "$JM_FILE"
    jm_have=$(jm_sum "$jm_dir/part")
    [ -n "$jm_have" ] || bail remote-failed "the host has no program for SHA-256" "it needs sha256sum, shasum, openssl or python3"
    if [ "$jm_have" != "$JM_SHA" ]; then
        rm -f -- "$jm_dir/part"
        bail remote-failed "$JM_FILE was damaged on the way (SHA-256 $jm_have)" "run it again; if it happens again, look at the host's disk and memory"
    fi
    jm_error=$(mv -f -- "$jm_dir/part" "$jm_dir/$JM_FILE" 2>&1) || bail remote-failed "cannot write $JM_FILE: ${jm_error##*: }"
    say path "$jm_dir/$JM_FILE"
    jm_unclaim
}

# jm_free_lock: an upload of the same file whose link died may wait for bytes for ever: end it if it gets none for three
# seconds.
jm_free_lock() {
    [ -d "$jm_dir/lock" ] || return 0
    jm_then=$(wc -c <"$jm_dir/part" 2>/dev/null)
    sleep 3
    [ "$jm_then" = "$(wc -c <"$jm_dir/part" 2>/dev/null)" ] || return 0
    # shellcheck disable=SC2046 # split into fields on purpose
    set -- $(cat "$jm_dir/lock/owner" 2>/dev/null)
    [ $# -ge 3 ] && [ "$3" = "$(jm_boot_id)" ] || return 0
    jm_end_server "$1" "$2" '' 2 1 >/dev/null
}

jm_sum() {
    if command -v sha256sum >/dev/null 2>&1; then
        sha256sum <"$1"
    elif command -v shasum >/dev/null 2>&1; then
        shasum -a 256 <"$1"
    elif command -v openssl >/dev/null 2>&1; then
        openssl dgst -sha256 <"$1" | sed 's/.*= *//'
    else
        python3 -c 'import hashlib, sys
digest = hashlib.sha256()
for block in iter(lambda: sys.stdin.buffer.read(1 << 20), b""):
    digest.update(block)
print(digest.hexdigest())' <"$1" 2>/dev/null
    fi | cut -c1-64 | grep -x '[0-9a-f]\{64\}'
}
