"""Deprecated name of runtime.net.parameters."""

from runtime.deprecated import alias

alias(__name__, "runtime.net.parameters")
