"""The event loop of all sockets, and writes to local programs."""
