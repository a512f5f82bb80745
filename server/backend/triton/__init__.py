"""Triton on the other side of the seam: requests and tokens as its gRPC service has them."""

from server.backend.triton.backend import TritonBackend
from server.backend.triton.words import error_of_message

__all__ = ["TritonBackend", "error_of_message"]
