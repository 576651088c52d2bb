"""Bundles: weights with everything that is needed to use them."""
