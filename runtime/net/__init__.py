"""Build nets and run them forward and backward. Caffe: net.hpp."""

from runtime.net.net import Net

__all__ = ["Net"]
