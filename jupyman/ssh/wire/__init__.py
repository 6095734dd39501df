"""The packets of one SSH connection (RFC 4253)."""
