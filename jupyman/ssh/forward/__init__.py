"""Forwarders: local listeners that lead to addresses on a host."""
