"""Pure planning of installations."""
