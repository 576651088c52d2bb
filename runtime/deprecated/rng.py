"""Deprecated name of runtime.core.rng."""

from runtime.deprecated import alias

alias(__name__, "runtime.core.rng")
