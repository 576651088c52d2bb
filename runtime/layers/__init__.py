"""The layers, one file per type."""
