"""What the programs share: the typed configuration, the run folder, and building each part from them."""
