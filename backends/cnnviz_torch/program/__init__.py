"""A network's operations as a list that can be run in part, faster, and on any batch."""
