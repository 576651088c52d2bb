"""What a net takes and does, without running it: summaries, receptive fields, memory, time."""
