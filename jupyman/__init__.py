"""jupyman: Jupyter on a remote GPU server, by one command that outlives the link."""

__version__ = "0.1.0"
