"""jupyman: Jupyter on a remote GPU server, by one command that outlives the link."""

__version__ = "0.2.0"
# Of the daemon's HTTP API: rises with each change that a client or daemon of the number before does not understand.
API_VERSION = 2  # 1: jupyman 0.1.0
