"""The value of a policy that chooses at several slots of a user in a row, where effects outlast a slot."""
