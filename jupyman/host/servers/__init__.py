"""Jupyter servers on a host: start, find, verify, stop, read their logs."""
