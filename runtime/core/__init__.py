"""Blobs and their memory, the base class of layers and its registry, fillers, random numbers."""
