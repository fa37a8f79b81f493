"""Raw columns of a context: which there are, and how each is computed from what a log says before a time."""
