"""SSH: links, host keys, logins, commands and forwards."""
