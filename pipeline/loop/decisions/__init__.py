"""What belongs to a day's decisions: their times, what is eligible, what was delivered, and why they are so."""
