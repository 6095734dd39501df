#!/bin/sh
# Everything that this machine can check: makes .venv, installs, then style, types, shell scripts, tests. It names what
# it skipped and why. Arguments go to pytest (as in: sh tests/run.sh tests/unit -k shell). Needs Python 3.11 or newer.
# JUPYMAN_TESTS_NO_SKIP=1: whatever is skipped counts as a failure.
set -u
cd "$(dirname "$0")/.." || exit 1
python=''
for one in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11 python; do
    if [ -n "$one" ] && "$one" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$one
        break
    fi
done
[ -n "$python" ] || {
    echo "error: there is no Python 3.11 or newer on PATH" >&2
    echo "hint: install one, or name it: PYTHON=/path/to/python3 sh tests/run.sh" >&2
    exit 2
}
venv=$("$python" examples/install.py test dev) || exit 1
bin=${venv%/*}
failed=''

# check NAME COMMAND...
check() {
    name=$1
    shift
    echo "== $name"
    "$@" || failed="$failed $name"
}

skipped() {
    echo "== $1: SKIPPED: $2"
    [ "${JUPYMAN_TESTS_NO_SKIP:-}" != 1 ] || failed="$failed $1(skipped)"
}

check style "$bin/ruff" check --quiet .
check format "$bin/ruff" format --check --quiet .
check types "$bin/mypy"
# jupyman/remote runs on the host, which is never Windows.
for platform in win32 darwin; do
    check "types-$platform" "$bin/mypy" --platform "$platform" --exclude /remote/ jupyman
done
if command -v shellcheck >/dev/null 2>&1; then
    check shell shellcheck -s sh jupyman/remote/*/*.sh tests/run.sh tests/bed/*.sh examples/*.sh
else
    skipped shell "shellcheck is not installed"
fi
# Each worker has a host of its own (sshd, accounts, conda). One more than there are CPUs, as many tests wait, and at most
# four. The files start in order, the short ones of tests/unit last: by default xdist starts with the files that have the
# most tests, which are short, and at the end one worker is alone with a long file.
workers=$("$venv" -c 'import os; print(min(4, 1 + (os.cpu_count() or 1)))')
case " $* " in *' -n '* | *' -n'[0-9]* | *' --pdb '*) ;; *) set -- -n "$workers" --dist loadfile --no-loadscope-reorder "$@" ;; esac
check tests "$bin/pytest" "$@"

if [ -n "$failed" ]; then
    echo "FAILED:$failed"
    exit 1
fi
echo "all checks passed"
