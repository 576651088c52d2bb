"""Deprecated name of runtime.net.memory_trace."""

from runtime.deprecated import alias

alias(__name__, "runtime.net.memory_trace")
