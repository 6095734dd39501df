# ruff: noqa: UP006, UP032, UP035 - this runs in kernels, on whatever Python they have
"""Configuration of ipykernels that our server starts (`--config=`, beside the user's own files): no output is dropped.

It is in the session's directory (0600 in 0700). It must never keep a kernel from starting: another version of ipykernel
stays as it is.
"""

import sys

# As in jupyter_inside.py: by default ZeroMQ silently drops what is more than 1000 messages ahead of a reader.
_MARK = 200000


def _larger_queue():
    # type: () -> None
    import zmq
    from ipykernel.kernelapp import IPKernelApp

    plain = IPKernelApp.init_iopub

    def init_iopub(self, context):  # type: ignore[no-untyped-def]
        context.setsockopt(zmq.SNDHWM, _MARK)  # for the sockets that it makes from now on
        try:
            return plain(self, context)  # type: ignore[no-untyped-call]
        finally:
            del context.sockopts[zmq.SNDHWM]

    IPKernelApp.init_iopub = init_iopub  # type: ignore[method-assign]


# A notebook may read its command line (argparse): it must not find this option.
sys.argv[:] = [word for word in sys.argv if word != "--config=" + __file__]
try:
    _larger_queue()
except Exception as _error:  # noqa: BLE001 - whatever fails, the kernel must start
    sys.stderr.write("jupyman: the queue for output stays as ipykernel has it: {!r}\n".format(_error))
