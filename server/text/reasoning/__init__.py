"""How models set what they think apart from what they answer."""
