"""The one seam to Triton: token ids in, token ids out."""
