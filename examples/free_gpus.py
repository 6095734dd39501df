"""Print the GPUs of a host that nobody uses, by way of `jupyman check --json`.

Usage: python examples/free_gpus.py server1
"""

import json
import subprocess
import sys

FEW = 500 * 1024 * 1024  # bytes that a driver keeps on an idle card

report = json.loads(
    subprocess.run(["jupyman", "check", *sys.argv[1:], "--json"], check=True, capture_output=True, text=True).stdout
)
for gpu in report["gpus"]:
    # A value that is not known is null, never 0.
    if gpu["memory_used"] is not None and gpu["memory_used"] < FEW and not gpu["processes"]:
        print(gpu["index"], gpu["name"], gpu["uuid"])
for problem in report["problems"]:
    print(f"{problem['severity']}: {problem['text']} ({problem['fix']})", file=sys.stderr)
