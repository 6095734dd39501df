"""From a host's name to an authenticated connection."""
