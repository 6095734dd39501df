"""How the daemon runs its work: clock, scheduler, pool, shared operations, progress."""
