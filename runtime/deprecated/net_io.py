"""Deprecated name of runtime.weights.net_weights."""

from runtime.deprecated import alias

alias(__name__, "runtime.weights.net_weights")
