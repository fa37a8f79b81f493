"""What time a log observed: its own span, each user's, and the order of events and decisions at one time."""
