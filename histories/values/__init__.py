"""How values of a log are read: ids and attributes of users, times, and the names of actions."""
