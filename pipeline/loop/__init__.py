"""The closed loop: decide every day, learn every day, and watch both."""
