"""Tests of reading decisions back."""
