"""Terminal output: progress bars, notes, and a console that tolerates a closed pipe."""
