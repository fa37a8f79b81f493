"""A simulated deployment: an app whose users respond, decided for and learned from day by day."""
