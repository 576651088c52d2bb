"""Deprecated name of runtime.net.replay."""

from runtime.deprecated import alias

alias(__name__, "runtime.net.replay")
