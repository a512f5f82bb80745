"""Whether a document is a JSON schema, in bounded time: the engine compiles it elsewhere, later.

What an engine doesn't support, though it is a schema, is the engine's to refuse.
"""

from server.protocol.json_schema.pointer import place
from server.protocol.json_schema.text import MAX_SCHEMA_CHARS, checked, checked_text

__all__ = ["MAX_SCHEMA_CHARS", "checked", "checked_text", "place"]
