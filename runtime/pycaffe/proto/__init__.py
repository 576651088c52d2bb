"""Stands for pycaffe's package of generated messages."""
