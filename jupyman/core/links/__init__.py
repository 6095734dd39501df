"""One SSH link per host: its policy, its supervisor, and what disturbs it."""
