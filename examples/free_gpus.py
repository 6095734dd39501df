"""Print the unused GPUs of a host, from `jupyman check --json`.

Usage: python examples/free_gpus.py server1
"""

import json
import subprocess
import sys

FEW = 500 * 1024 * 1024  # bytes that a driver uses on an idle card

words = ["jupyman", "check", "--json", "--", *sys.argv[1:]]
ran = subprocess.run(words, check=False, stdout=subprocess.PIPE, text=True)
report = json.loads(ran.stdout)
if ran.returncode:
    # An error is one JSON object on stdout too; the exit status is not 0.
    print(f"error: {report['error']['message']}\nhint: {report['error']['hint']}", file=sys.stderr)
    raise SystemExit(ran.returncode)
for gpu in report["gpus"]:
    # An unknown value is null, never 0.
    if gpu["memory_used"] is not None and gpu["memory_used"] < FEW and not gpu["processes"]:
        print(gpu["index"], gpu["name"], gpu["uuid"])
for problem in report["problems"]:
    print(f"{problem['severity']}: {problem['text']} ({problem['fix']})", file=sys.stderr)
