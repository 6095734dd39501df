"""The per-user background process and its HTTP API."""
