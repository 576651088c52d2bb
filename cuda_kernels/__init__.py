"""Handwritten CUDA kernels, and how they are built."""
