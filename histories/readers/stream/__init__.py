"""Reading one event stream of a customer-data platform: sends become decisions, all else is events."""
