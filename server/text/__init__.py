"""Text on this side of Triton: templates, tokens, and back."""
