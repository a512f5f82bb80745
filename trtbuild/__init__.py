"""The front door: one file per command, thin: parse, call, print."""
