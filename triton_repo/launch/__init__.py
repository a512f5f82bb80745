"""A repository's Triton: found, started on its ports and GPUs, supervised, stopped."""
