# ruff: noqa: UP006, UP032, UP035, UP045 - this runs on the host, on Python 3.6 as well
"""Runs on the host, by the environment's own Python (3.6+) and its own jupyter_client: starts a kernel of a spec and
asks it who it is. No server is needed, and no TCP port: the kernel talks over UNIX sockets in a private directory.

Arguments: NAME, DIRECTORY of the kernel specs, SECONDS. Prints ``executable PATH``, ``prefix``, ``version``, ``conda``.
"""

import os
import shutil
import sys
import tempfile
import time
from typing import Any, Dict

CODE = """
import os, sys
print("executable " + sys.executable)
print("prefix " + os.path.realpath(sys.prefix))
print("version " + ".".join(map(str, sys.version_info[:3])))
print("conda " + os.environ.get("CONDA_PREFIX", ""))
"""


def prove(name: str, specs: str, seconds: float, private: str) -> str:
    from jupyter_client.manager import KernelManager
    from jupyter_client.kernelspec import KernelSpecManager

    # Only this folder: in a venv an entry of the environment itself would hide the user's.
    finder = KernelSpecManager(kernel_dirs=[specs])
    file = os.path.join(private, "k.json")
    manager = KernelManager(
        kernel_name=name,
        kernel_spec_manager=finder,
        transport="ipc",
        connection_file=file,
        ip=os.path.join(private, "k"),
    )
    end = time.time() + seconds
    with open(os.path.join(private, "log"), "w+", errors="replace") as log:
        try:
            manager.start_kernel(stdin=log, stdout=log, stderr=log, cwd=private)
            client = manager.blocking_client()
            client.start_channels()
            try:
                client.wait_for_ready(timeout=max(1, end - time.time()))
                return ask(client, end)
            finally:
                client.stop_channels()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
            log.seek(0)
            told = [line.rstrip() for line in log if line.strip()]
            sys.exit("{}: {}".format(type(error).__name__, told[-1] if told else error))
        finally:
            if manager.has_kernel:
                manager.shutdown_kernel(now=True)


def ask(client: Any, end: float) -> str:
    wanted = client.execute(CODE, store_history=False)
    text = ""
    while True:
        message: Dict[str, Any] = client.get_iopub_msg(timeout=max(0.1, end - time.time()))
        if message["parent_header"].get("msg_id") != wanted:
            continue
        kind, content = message["msg_type"], message["content"]
        if kind == "stream":
            text += content["text"]
        elif kind == "error":
            raise RuntimeError("{}: {}".format(content["ename"], content["evalue"]))
        elif kind == "status" and content["execution_state"] == "idle":
            return text


def main() -> None:
    # Short, for the sockets' paths (107 bytes), and 0700.
    private = tempfile.mkdtemp(prefix="jm-", dir="/tmp")
    # IPython too keeps to it: no history file in the home, where SQLite may hang on NFS.
    os.environ["JUPYTER_RUNTIME_DIR"] = os.environ["IPYTHONDIR"] = private
    try:
        print(prove(sys.argv[1], sys.argv[2], float(sys.argv[3]), private))
    finally:
        shutil.rmtree(private, ignore_errors=True)


main()
