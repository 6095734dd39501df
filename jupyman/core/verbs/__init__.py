"""The verbs of the command line, as the daemon runs them."""
