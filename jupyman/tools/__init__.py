"""Pure readers of what programs on the host print."""
