"""How the market's users behave: traits, calendar, responses, and the events that they cause."""
