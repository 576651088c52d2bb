"""Deprecated name of runtime.net.schedule."""

from runtime.deprecated import alias

alias(__name__, "runtime.net.schedule")
