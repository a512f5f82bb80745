"""What can be done to a running Triton: its models listed, loaded, unloaded, replaced."""
