"""Images into LMDB, and LMDB records into batches."""
