"""A schema as the text that engines take."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from server.protocol.json_schema.walk import check, refuse

MAX_SCHEMA_CHARS: Final = 256 * 1024


def checked_text(schema: Any, param: str) -> str:
    """`schema`, or the one that a JSON text says, as text.

    Raises InvalidRequestError with `param` and the place in it that is no JSON schema.
    """
    if isinstance(schema, str):
        try:
            schema = msgspec.json.decode(schema)
        except (msgspec.DecodeError, RecursionError) as error:
            refuse(f"not JSON ({error})", param)
    if not isinstance(schema, dict):
        refuse("not a JSON schema: it must be an object", param)
    return checked(schema, param)[0]


def checked(schema: dict[str, Any], param: str) -> tuple[str, int]:
    """`schema` as text, and how many schemas it is. Raises as `checked_text` does."""
    schemas = check(schema, param)
    try:
        text = msgspec.json.encode(schema).decode()
    except RecursionError:
        refuse("values nested too deeply", param)
    if len(text) > MAX_SCHEMA_CHARS:
        refuse(f"a schema of more than {MAX_SCHEMA_CHARS} characters", param)
    return text, schemas
