"""The layers, one file a type."""
