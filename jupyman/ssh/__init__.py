"""The SSH room: links, host keys, login, forwards."""
