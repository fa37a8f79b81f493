"""Tests of what belongs to a day's decisions."""
