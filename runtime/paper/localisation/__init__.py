"""Localisation: nets that predict boxes, their training, application and evaluation. Paper: A."""
