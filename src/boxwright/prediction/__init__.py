"""A detector over files: batching, mapping home, to a box table."""
