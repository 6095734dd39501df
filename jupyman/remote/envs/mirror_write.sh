# shellcheck shell=sh disable=SC2154 # some variables come from the libraries
# uses: lib/server
# Write one of the user's own files atomically; its mode stays, and a symbolic link is followed.
# JM_PATH  JM_SUM its cksum when it was read, "" if it was absent  JM_TEXT
# JM_DO use: keep the old content beside it; reset: restore that
# Says: written
main() {
    jm_real=$JM_PATH
    [ ! -L "$JM_PATH" ] || jm_real=$(readlink -f -- "$JM_PATH") || bail remote-failed "$JM_PATH is a link to nothing" "correct or remove that link"
    jm_now=''
    if [ -e "$jm_real" ]; then
        jm_look "$jm_real"
        if [ ! -f "$jm_real" ] || [ "$jm_uid" != "$jm_me" ]; then bail not-ours "$jm_real is not a file of yours" "ask its owner"; fi
        jm_now=$(cksum <"$jm_real")
    fi
    [ "$jm_now" = "$JM_SUM" ] || bail remote-failed "$JM_PATH was changed meanwhile" "run it again"
    jm_new=$jm_real.jupyman-new-$$
    # shellcheck disable=SC2317 # called by bail
    jm_undo() { rm -f -- "$jm_new"; }
    trap 'jm_undo; exit 0' HUP INT TERM PIPE
    if [ "$JM_DO" = reset ]; then
        if [ -f "$JM_PATH.jupyman-absent" ]; then
            jm_error=$(rm -f -- "$jm_real" "$JM_PATH.jupyman-absent" 2>&1) || jm_cannot
        elif [ -f "$JM_PATH.jupyman-backup" ]; then
            jm_error=$(cp -p -- "$JM_PATH.jupyman-backup" "$jm_new" 2>&1 && mv -f -- "$jm_new" "$jm_real" 2>&1 && rm -f -- "$JM_PATH.jupyman-backup" 2>&1) || jm_cannot
        fi
        say written "$JM_PATH"
        return 0
    fi
    jm_error=$(mkdir -p -- "${jm_real%/*}" 2>&1) || jm_cannot
    if [ ! -f "$JM_PATH.jupyman-backup" ] && [ ! -f "$JM_PATH.jupyman-absent" ]; then
        # Of several changes, the content before the first is kept.
        if [ -n "$jm_now" ]; then
            jm_error=$(cp -p -- "$jm_real" "$JM_PATH.jupyman-backup" 2>&1) || jm_cannot
        else
            jm_error=$({ : >"$JM_PATH.jupyman-absent"; } 2>&1) || jm_cannot
        fi
    fi
    # A copy first, for its mode; then its content is replaced.
    [ -z "$jm_now" ] || jm_error=$(cp -p -- "$jm_real" "$jm_new" 2>&1) || jm_cannot
    jm_error=$({ printf '%s' "$JM_TEXT" >"$jm_new" && mv -f -- "$jm_new" "$jm_real"; } 2>&1) || jm_cannot
    say written "$JM_PATH"
}

jm_cannot() { bail remote-failed "cannot write $JM_PATH: ${jm_error##*: }" "make room or mend its permissions on the host"; }
