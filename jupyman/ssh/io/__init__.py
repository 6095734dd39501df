"""The event loop of all sockets, and what it writes to local programs."""
