"""What `benchmarks/proxy.py` sets up around the proxy: an engine, clients, and other proxies."""
