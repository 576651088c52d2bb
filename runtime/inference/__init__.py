"""Loads nets with their weights, and predicts arrays."""
