"""Deprecated name of runtime.core.synced_memory."""

from runtime.deprecated import alias

alias(__name__, "runtime.core.synced_memory")
