"""Byte streams between local sockets and endpoints, whatever carries them."""
