# ruff: noqa: UP006, UP032, UP035, UP045 - this runs on the host, on Python 3.6 as well
"""Runs on the host, by the environment's own Python (3.6+): computes something small with its torch, on the GPU if the
build can. Only that shows whether it works: torch.cuda.is_available() can be true although every CUDA kernel fails.

Prints one line ``jupyman-torch JSON``; warnings of torch may surround it.
"""

import json
import sys
import time
from typing import Any, Dict

SIDE = 256  # a product of two matrices of ones of this side has the sum SIDE ** 3


def compute(torch: Any, device: str) -> float:
    ones = torch.ones((SIDE, SIDE), device=device)
    return float((ones @ ones).sum().item())


def run(report: Dict[str, Any]) -> None:
    report["stage"] = "import"
    import torch

    report["version"] = str(torch.__version__)
    report["cuda"] = torch.version.cuda
    report["hip"] = getattr(torch.version, "hip", None)
    device = "cpu" if report["cuda"] is None and report["hip"] is None else "cuda"
    report["stage"] = device
    report["right"] = compute(torch, device) == SIDE**3
    if device == "cuda":
        # After the product: if that fails, its error has the reason, while these calls may only report "no device".
        report["device"] = str(torch.cuda.get_device_name(0))
        report["capability"] = ".".join(str(part) for part in torch.cuda.get_device_capability(0))
    report["stage"] = "done"


def main() -> None:
    report: Dict[str, Any] = {}
    began = time.time()
    try:
        run(report)
    except BaseException as error:  # noqa: BLE001 - every failure is an answer
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        report["error"] = "{}: {}".format(type(error).__name__, lines[0] if lines else "no message")[:500]
    report["seconds"] = round(time.time() - began, 2)
    sys.stdout.write("\njupyman-torch " + json.dumps(report) + "\n")


main()
