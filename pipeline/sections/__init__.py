"""The sections of a run's configuration that belong to the pipeline itself."""
