"""The sessions of this user: their state, its store, and what keeps it true."""
