"""The value of the learning procedure: agents that learn without a fold of users, each judged by that fold."""
