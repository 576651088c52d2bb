"""Predictions of images over HTTP."""
