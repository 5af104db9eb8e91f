"""What pretext tasks are made of: heads, losses, memories, decoders, and what families of tasks share."""
