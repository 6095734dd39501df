"""The GPUs of a host and who uses them."""
