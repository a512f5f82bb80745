"""POST /v1/embeddings: texts to vectors, by an encoder."""

from server.embeddings.handler import Embeddings

__all__ = ["Embeddings"]
