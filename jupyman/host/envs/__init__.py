"""What a host can make environments with."""
