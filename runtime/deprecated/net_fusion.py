"""Deprecated name of runtime.net.fusion."""

from runtime.deprecated import alias

alias(__name__, "runtime.net.fusion")
