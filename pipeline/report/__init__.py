"""The parts of a run's report: the card at its top, and the sections that need more than the evaluation."""
