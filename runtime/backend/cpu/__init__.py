"""The CPU backend: numpy, and the native extension where it is built."""
