"""Training on several devices and machines, bit for bit as on one. Paper: 3.3."""
