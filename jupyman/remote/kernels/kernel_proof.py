# ruff: noqa: UP006, UP032, UP035, UP045 - this runs on the host, on Python 3.6 as well
"""Runs on the host, by a Python (3.6+) that has jupyter_client: starts a kernel of a spec and asks it for its interpreter.
It needs no server and no TCP port: the kernel uses UNIX sockets in a private directory.

Arguments: NAME, DIRECTORY of the kernel specs, SECONDS, and a file descriptor of the channel. When the other end of that
closes, or on SIGTERM, the kernel is ended with all that it started. Prints ``executable PATH``, ``prefix``, ``version``,
``conda``, ``ipywidgets`` (a version, ``none``, or ``broken WHY``); nothing for a kernel of another language.
"""

import os
import select
import shutil
import signal
import sys
import tempfile
import threading
import time
from typing import Any, Dict

CODE = """
import os, sys
print("executable " + sys.executable)
print("prefix " + os.path.realpath(sys.prefix))
print("version " + ".".join(map(str, sys.version_info[:3])))
print("conda " + os.environ.get("CONDA_PREFIX", ""))
try:
    import ipywidgets
    print("ipywidgets " + str(ipywidgets.__version__))
except ImportError as error:
    missing = getattr(error, "name", None) == "ipywidgets"
    print("ipywidgets " + ("none" if missing else "broken " + " ".join(str(error).split())[:200]))
except Exception as error:
    print("ipywidgets broken " + " ".join(str(error).split())[:200])
"""


def prove(name: str, specs: str, seconds: float, private: str) -> str:
    from jupyter_client.manager import KernelManager
    from jupyter_client.kernelspec import KernelSpecManager

    # Only this folder: in a venv, the environment's own spec would hide the user's.
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
                # Ask the kernel: kernel.json need not name the language.
                reply = client.kernel_info(reply=True, timeout=max(1, end - time.time()))
                language = reply["content"].get("language_info", {}).get("name", "")
                return ask(client, end) if language == "python" else ""
            finally:
                client.stop_channels()
        except Exception as error:  # noqa: BLE001 - every failure is an answer
            log.seek(0)
            told = [line.rstrip() for line in log if line.strip()]
            sys.exit("{}: {}".format(type(error).__name__, told[-1] if told else error))
        finally:
            if manager.has_kernel:
                end_all(manager)


def end_all(manager: Any) -> None:
    """End the kernel with what its activation or start-up runs: it leads a process group of its own."""
    started = (
        getattr(manager, "provisioner", None) or manager.kernel
    )  # before jupyter_client 7 it is the process itself
    try:
        # First: until it is reaped, no other process has its pid.
        os.killpg(started.pid, signal.SIGKILL)
    except (OSError, TypeError):
        pass  # it is gone
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


def watch(listener: int) -> None:
    """End this program when the other end is closed: sshd closes it with the channel."""
    poll = select.poll()
    poll.register(listener, 0)  # an error and a hang-up are always reported
    for _, event in poll.poll():
        if not event & select.POLLNVAL:
            os.kill(os.getpid(), signal.SIGTERM)


def stop(number: int, frame: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit("ended from outside")


def main() -> None:
    # Short, for the paths of sockets (107 bytes), and 0700.
    private = tempfile.mkdtemp(prefix="jm-", dir="/tmp")
    # IPython uses it, too: no history file in the home, on which SQLite may hang (NFS).
    os.environ["JUPYTER_RUNTIME_DIR"] = os.environ["IPYTHONDIR"] = private
    try:
        signal.signal(signal.SIGTERM, stop)
        threading.Thread(target=watch, args=(int(sys.argv[4]),), daemon=True).start()
        print(prove(sys.argv[1], sys.argv[2], float(sys.argv[3]), private))
    finally:
        shutil.rmtree(private, ignore_errors=True)


main()
