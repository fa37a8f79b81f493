"""How values of a log are read: times, attributes of users, and the names of actions."""
