"""Readers: from files of several layouts to a `History`, or to an `InputError` that names every fault."""
