"""Learn agents from sums over leaves of users, so that no computation holds the rows of all users."""
