"""One choice's way from token ids to text events."""

from server.answer.answer import Answer
from server.answer.joined import joined

__all__ = ["Answer", "joined"]
