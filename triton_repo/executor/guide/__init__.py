"""Guided decoding: which tokens may come next, so that an answer keeps to a schema or grammar."""

from triton_repo.executor.guide.compiled import KINDS, Guide, Guides

__all__ = ["KINDS", "Guide", "Guides"]
