"""Pictures of what a net computes: filters, activations, and the pixels that decide a class."""
