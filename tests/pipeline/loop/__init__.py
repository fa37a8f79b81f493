"""Tests of the daily loop."""
