"""Deprecated name of runtime.core.context."""

from runtime.deprecated import alias

alias(__name__, "runtime.core.context")
