"""Commands on session channels."""
