"""Objects that threads and forked processes share: locks, and refusals to be copied."""
