"""Deprecated name of runtime.net.activation_memory."""

from runtime.deprecated import alias

alias(__name__, "runtime.net.activation_memory")
