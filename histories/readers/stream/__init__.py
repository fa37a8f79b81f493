"""Read one event stream of a customer-data platform: sends become decisions, other rows are events."""
