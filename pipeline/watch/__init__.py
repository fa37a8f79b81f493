"""Watch a deployment: alerts after each day, and users that are forgotten."""
