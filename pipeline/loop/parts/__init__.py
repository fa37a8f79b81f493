"""What learning day by day makes of a log part by part: digests, rewards and rows, which add up over its users."""
