"""Deprecated name of runtime.weights.caffemodel."""

from runtime.deprecated import alias

alias(__name__, "runtime.weights.caffemodel")
