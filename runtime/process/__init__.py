"""Base classes of objects in threads and forked processes: locks, and protection from copies."""
