"""Nets: built, run forward and backward, replayed. Caffe: net.hpp."""

from runtime.net.net import Net

__all__ = ["Net"]
