"""The report of a run: its card, the sections that need more than the evaluation, and the page of both."""
