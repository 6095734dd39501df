"""How a server is started on a host: plain (nohup), later Slurm."""
