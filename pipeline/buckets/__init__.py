"""Write a log into buckets of users; train and evaluate on them without more than a few of them in memory."""
