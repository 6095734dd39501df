# shellcheck shell=sh
# The addresses that this host reaches: all are tried at once, for JM_LIMIT seconds.
# JM_URLS lines `KEY ADDRESS`
# Says: tool, reach KEY MILLISECONDS
main() {
    jm_tool=''
    for jm_one in curl wget python3 python; do
        if command -v "$jm_one" >/dev/null 2>&1; then
            jm_tool=$jm_one
            break
        fi
    done
    say tool "$jm_tool"
    [ -n "$jm_tool" ] || return 0
    while read -r jm_key jm_url; do
        [ -z "$jm_key" ] || jm_ask "$jm_key" "$jm_url" &
    done <<URLS
$JM_URLS
URLS
    wait
}

# GNU date prints nanoseconds; others print whole seconds and a letter.
jm_clock() {
    jm_stamp=$(date +%s%N)
    case $jm_stamp in *[!0-9]*) jm_stamp=$(date +%s)000000000 ;; esac
    echo "$((jm_stamp / 1000000))"
}

jm_ask() {
    jm_before=$(jm_clock)
    case $jm_tool in
        curl) within "$((JM_LIMIT + 1))" curl -fsSLI -o /dev/null -m "$JM_LIMIT" -- "$2" ;;
        wget) within "$((JM_LIMIT + 1))" wget -q --spider -T "$JM_LIMIT" -t 1 -- "$2" ;;
        *) within "$((JM_LIMIT + 1))" "$jm_tool" -c 'import sys
try:
    from urllib.request import Request, urlopen
except ImportError:
    from urllib2 import Request, urlopen
request = Request(sys.argv[1])
request.get_method = lambda: "HEAD"
urlopen(request, timeout=float(sys.argv[2])).close()' "$2" "$JM_LIMIT" ;;
    esac </dev/null >/dev/null 2>&1 || return 0
    say reach "$1 $(($(jm_clock) - jm_before))"
}
