"""Deprecated name of runtime.core.filler."""

from runtime.deprecated import alias

alias(__name__, "runtime.core.filler")
