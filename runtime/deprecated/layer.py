"""Deprecated name of runtime.core.layer."""

from runtime.deprecated import alias

alias(__name__, "runtime.core.layer")
