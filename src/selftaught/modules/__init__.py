"""Building blocks of pretext tasks: heads, losses, memory banks, decoders, and base classes of related tasks."""
