"""Deprecated name of runtime.weights.solverstate."""

from runtime.deprecated import alias

alias(__name__, "runtime.weights.solverstate")
