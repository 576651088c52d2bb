"""Properties of a net without running it: summaries, receptive fields, memory, time."""
