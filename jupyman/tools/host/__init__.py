"""Pure readers of what programs of the operating system print."""
