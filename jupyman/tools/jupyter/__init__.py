"""Pure knowledge of Jupyter's files and processes."""
