"""OpenAI's chat completions: bytes to a TextRequest, events to bytes."""

from server.protocol.openai_chat.body import ChatRequest, parse
from server.protocol.openai_chat.stream import ChatStream
from server.protocol.openai_chat.whole import render

ID_PREFIX = "chatcmpl-"

__all__ = ["ID_PREFIX", "ChatRequest", "ChatStream", "parse", "render"]
