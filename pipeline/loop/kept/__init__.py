"""What learning keeps of a log by day: rows as they were read, digests of days, totals of users."""
