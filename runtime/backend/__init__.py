"""Where ops run: the seam between layers and devices."""
