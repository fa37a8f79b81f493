"""Replay of a logged history: the log, the single and the vector environment, and exact rejection."""
