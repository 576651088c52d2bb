"""Deprecated name of runtime.net.building."""

from runtime.deprecated import alias

alias(__name__, "runtime.net.building")
