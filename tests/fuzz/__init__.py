"""Damaged inputs of every kind: they are refused by the package's own errors, or read as what they are."""
