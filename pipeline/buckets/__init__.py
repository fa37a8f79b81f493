"""Train and evaluate on a log in buckets of users: no step holds more than a few buckets in memory."""
