"""What takes part in a training besides the agent: callbacks."""
