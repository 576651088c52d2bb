"""Localisation: nets that predict boxes, how they are trained, applied and judged. Paper: A."""
