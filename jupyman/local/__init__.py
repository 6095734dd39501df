"""This computer: the daemon's address, its start, and whose connections come in."""
