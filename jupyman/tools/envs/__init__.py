"""Pure knowledge of Python environments."""
