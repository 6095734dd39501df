"""What a host has and who uses it: the probe and the ports."""
