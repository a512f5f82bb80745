"""One generation as an HTTP answer, streamed or whole, in any dialect."""

from server.reply.dialect import CHAT, COMPLETIONS, Dialect, Stream
from server.reply.reply import Reply

__all__ = ["CHAT", "COMPLETIONS", "Dialect", "Reply", "Stream"]
