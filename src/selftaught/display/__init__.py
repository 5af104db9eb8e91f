"""What people see while they wait: progress bars, notes and a console that survives a closed pipe."""
