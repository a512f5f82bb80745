"""Reading text that comes piece by piece, so that where it is cut never shows."""
