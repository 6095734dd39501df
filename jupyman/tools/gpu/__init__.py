"""Pure knowledge of NVIDIA drivers, CUDA and torch."""
