"""A model of rewards along a funnel: who engages with a message, what that earns, what it costs."""
