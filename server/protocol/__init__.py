"""The wire dialects: bytes to requests, events to bytes, nothing else."""
