# shellcheck shell=sh
# uses: lib/kernel
# Install packages into an environment by its own tool, or only print the command.
# JM_PYTHON JM_PREFIX JM_KIND JM_ROOT of the environment  JM_PACKAGES one a line
# JM_COMMAND that the user was shown and agreed to, one word a line; empty: only print it
# Says: word (each of the command), or tool none, or owner NAME of an environment that the account cannot change;
# then line (of the command's output), status
main() {
    jm_status=''
    # shellcheck disable=SC2086 # split into words on purpose, at line ends only
    {
        IFS=$JM_NL
        set -f
        set -- $JM_PACKAGES
        set +f
        unset IFS
    }
    jm_words=$(jm_installer "$@")
    case $? in
        0) ;;
        2)
            # shellcheck disable=SC2012 # stat is not POSIX
            say owner "$(ls -ld -- "$JM_PREFIX/." | awk '{ print $3; exit }')"
            return 0
            ;;
        *)
            say tool none
            return 0
            ;;
    esac
    printf '%s\n' "$jm_words" | lines word
    [ -n "$JM_COMMAND" ] || return 0
    [ "$jm_words" = "$JM_COMMAND" ] || fail remote-failed "the environment has changed meanwhile: $JM_PREFIX" "run jupyman kernel check again"
    jm_execute "$jm_words"
    say status "$jm_status"
}
