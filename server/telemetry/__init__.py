"""What the proxy tells about itself."""
