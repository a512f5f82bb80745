"""Text and tokens: templates, tokens, and back; for the proxy and for the models inside Triton.

Imports no other room, and beside the standard library only jinja2 and tokenizers: copies of these
files run in NVIDIA's containers.
"""
