"""Training: the task-independent loop, optimizers and schedules, planning, profiling and the log."""
