#!/bin/sh
# Run jupyman against a temporary SSH host on this computer. It needs Python 3.11 or newer, makes .venv, installs, and
# runs `jupyman demo`. Without a terminal, or with --once, the demo cleans up and ends.
set -eu
cd "$(dirname "$0")/.."
for python in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11 python; do
    if [ -n "$python" ] && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        exec "$python" examples/demo.py "$@"
    fi
done
echo "error: there is no Python 3.11 or newer on PATH" >&2
echo "hint: install one, or name it: PYTHON=/path/to/python3 sh examples/demo.sh" >&2
exit 2
