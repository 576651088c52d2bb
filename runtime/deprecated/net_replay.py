"""Deprecated name of runtime.net.net_replay."""

from runtime.deprecated import alias

alias(__name__, "runtime.net.net_replay")
