"""What the daemon does: sessions, links, and the work on a host."""
