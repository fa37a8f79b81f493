"""The Thompson ensemble: a shared network, closed-form heads, and bootstrap members that vote."""
