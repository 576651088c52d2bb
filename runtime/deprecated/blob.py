"""Deprecated name of runtime.core.blob."""

from runtime.deprecated import alias

alias(__name__, "runtime.core.blob")
