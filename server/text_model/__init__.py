"""A served model's text side: requests to token ids and limits, answers to be read."""

from server.text_model.model import TextModel
from server.text_model.prepared import Prepared

__all__ = ["Prepared", "TextModel"]
