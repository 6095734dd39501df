# shellcheck shell=sh disable=SC2154 # some variables come from the libraries
# uses: lib/server
# The files in which conda and pip are told where packages come from. Read-only.
# Says: file.name, .path, .state (absent, ours, foreign), .kept (backup, absent), .sum, .line; kept.name, .line
main() {
    jm_file condarc "$HOME/.condarc"
    jm_file mambarc "$HOME/.mambarc"
    jm_pip=${XDG_CONFIG_HOME:-$HOME/.config}/pip/pip.conf
    [ -e "$jm_pip" ] || [ ! -e "$HOME/.pip/pip.conf" ] || jm_pip=$HOME/.pip/pip.conf
    jm_file pip "$jm_pip"
}

jm_file() {
    say file.name "$1"
    say file.path "$2"
    jm_real=$2
    [ ! -L "$2" ] || jm_real=$(readlink -f -- "$2")
    if [ -z "$jm_real" ]; then
        say file.state foreign # a link to something not readable, or to itself
    elif [ ! -e "$jm_real" ]; then
        say file.state absent
    elif [ -f "$jm_real" ] && jm_look "$jm_real" && [ "$jm_uid" = "$jm_me" ] && [ -w "$jm_real" ]; then
        say file.state ours
    else
        say file.state foreign
    fi
    if [ -f "$jm_real" ] && [ -r "$jm_real" ]; then
        say file.sum "$(cksum <"$jm_real")"
        # A mark at the end of each line keeps a carriage return before it.
        head -c 200000 <"$jm_real" | sed 's/$/|/' | lines file.line
    fi
    [ ! -f "$2.jupyman-absent" ] || say file.kept absent
    if [ -f "$2.jupyman-backup" ]; then
        say file.kept backup
        say kept.name "$1"
        head -c 200000 <"$2.jupyman-backup" | sed 's/$/|/' | lines kept.line
    fi
}
