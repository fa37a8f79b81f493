"""Judging a policy: estimates beside comparators, the headline's order, the verdict, and what pictures need."""
