"""Policies on the market, the optimal one among them, and their simulated deployment."""
