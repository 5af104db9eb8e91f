"""Training: one loop that names no task, and what it stands on: optimizer, plan, checkpoint, log."""
