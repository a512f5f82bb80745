"""Who may ask, what of, and how much."""
