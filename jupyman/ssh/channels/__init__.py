"""Channels on a connection (RFC 4254) and the relay of forwarded connections."""
