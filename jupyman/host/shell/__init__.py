"""Run scripts on a host, copy files to it, and start long jobs there."""
