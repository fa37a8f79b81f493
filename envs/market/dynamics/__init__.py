"""Behaviour of the simulated users: traits, calendar, responses to messages, and events."""
