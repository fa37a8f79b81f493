"""Average effects of a log in buckets of users, from sums that add up: those of the whole log by the kind `did`."""
