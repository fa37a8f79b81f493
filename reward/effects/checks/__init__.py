"""Checks of what the effects of a log's messages assume, each in a file of its own."""
