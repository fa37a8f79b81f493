"""Read files of several layouts as a `History`, or raise an `InputError` with every fault."""
