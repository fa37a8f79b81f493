"""Agents whose estimates are Bayesian linear regressions, on the context or on a network's last layer."""
