"""Tests of `pipeline/watch`."""
