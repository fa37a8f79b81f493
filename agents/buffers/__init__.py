"""What an agent has observed: growing buffers, transitions, and rewards that are not known yet."""
