"""The user's SSH configuration."""
