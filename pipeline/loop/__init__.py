"""The daily loop: decide for a day, learn from what followed, and judge it."""
