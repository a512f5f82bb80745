"""The proxy's side of text: what it adds to the room `text`."""
