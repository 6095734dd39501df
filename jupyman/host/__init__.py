"""Input and output on one host: scripts, reports, servers, kernels, environments, GPUs."""
