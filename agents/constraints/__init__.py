"""Constraints on a policy: limits per user and week, and the shadow prices under which it keeps them."""
