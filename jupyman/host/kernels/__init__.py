"""Kernel specs and kernels on a host."""
