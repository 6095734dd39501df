# ruff: noqa: UP006, UP032, UP035 - this runs in kernels, on whatever Python they have
"""What an ipykernel reads that our server starts (`--config=`, beside the user's own files): no output is dropped.

It lies in the session's directory (0600 in 0700). It must never keep a kernel from starting: where ipykernel is built
otherwise, it stays as it is.
"""

import sys

# As in jupyter_config.py: by default ZeroMQ drops, without a word, what is more than 1000 messages ahead of a reader.
_MARK = 200000


def _roomy():
    # type: () -> None
    import zmq
    from ipykernel.kernelapp import IPKernelApp

    plain = IPKernelApp.init_iopub

    def init_iopub(self, context):  # type: ignore[no-untyped-def]
        context.setsockopt(zmq.SNDHWM, _MARK)  # of the sockets that it makes from now on
        try:
            return plain(self, context)  # type: ignore[no-untyped-call]
        finally:
            del context.sockopts[zmq.SNDHWM]

    IPKernelApp.init_iopub = init_iopub  # type: ignore[method-assign]


# A notebook that reads its command line (argparse) must not find an option that it may have itself.
sys.argv[:] = [word for word in sys.argv if word != "--config=" + __file__]
try:
    _roomy()
except Exception as _error:  # noqa: BLE001 - whatever it is: the kernel starts
    sys.stderr.write("jupyman: the mark of output as ipykernel has it: {!r}\n".format(_error))
