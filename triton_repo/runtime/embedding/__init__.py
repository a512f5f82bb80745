"""Triton's `embedding` model: token ids in, an embedding out, by an encoder on OpenVINO."""
