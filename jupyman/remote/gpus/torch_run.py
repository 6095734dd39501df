# ruff: noqa: UP006, UP032, UP035, UP045 - this runs on the host, on Python 3.6 as well
"""Runs on the host, by the environment's own Python (3.6+): computes something small with its torch, on the GPU where the
build can. Only that tells whether it works: torch.cuda.is_available() was seen to say yes where every kernel failed.

Prints one line ``jupyman-torch JSON``; warnings of torch may stand around it.
"""

import json
import sys
import time
from typing import Any, Dict

SIDE = 256  # a product of two matrices of ones of this side has the sum SIDE ** 3


def compute(torch: Any, device: str) -> float:
    ones = torch.ones((SIDE, SIDE), device=device)
    return float((ones @ ones).sum().item())


def run(told: Dict[str, Any]) -> None:
    told["stage"] = "import"
    import torch

    told["version"] = str(torch.__version__)
    told["cuda"] = torch.version.cuda
    told["hip"] = getattr(torch.version, "hip", None)
    device = "cpu" if told["cuda"] is None and told["hip"] is None else "cuda"
    told["stage"] = device
    told["right"] = compute(torch, device) == SIDE**3
    if device == "cuda":
        # After the product: where that fails, its words say why, and these calls may only say "no device".
        told["device"] = str(torch.cuda.get_device_name(0))
        told["capability"] = ".".join(str(part) for part in torch.cuda.get_device_capability(0))
    told["stage"] = "done"


def main() -> None:
    told: Dict[str, Any] = {}
    began = time.time()
    try:
        run(told)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is the answer
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        told["error"] = "{}: {}".format(type(error).__name__, lines[0] if lines else "no message")[:500]
    told["seconds"] = round(time.time() - began, 2)
    sys.stdout.write("\njupyman-torch " + json.dumps(told) + "\n")


main()
