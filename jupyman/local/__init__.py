"""This computer: the daemon's address and start, and the owners of incoming connections."""
