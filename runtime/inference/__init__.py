"""Loading a net with its weights, and predictions of arrays."""
