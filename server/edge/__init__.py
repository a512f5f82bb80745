"""The proxy's outer edge: connections, requests and routes, before any of them has a meaning."""
