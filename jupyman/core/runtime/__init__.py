"""What runs the daemon's work: clock, scheduler, pools, progress."""
