"""JSON schemas before llguidance sees them: those that would take its stack are refused.

llguidance follows a schema and its references by recursion, and a process whose stack is full is
gone. Nesting is bounded where the text is read; a chain of references can be as long as the text.
"""

from __future__ import annotations

import json

from builder.errors import RequestError

MOST_PARTS = 1500
"""Objects and arrays of a schema with references: half of what fits a thread's stack of 8 MiB."""


def check_depth(text: str) -> None:
    """Raise RequestError for a schema that isn't JSON, or could be followed too deep."""
    try:
        parts, references = _count(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise _refused(f"no JSON: {error}") from error
    if references and parts > MOST_PARTS:
        raise _refused(
            f"{parts} objects and arrays, where a schema with $ref may have {MOST_PARTS}"
        )


def _count(schema: object) -> tuple[int, bool]:
    """How many objects and arrays there are, and whether a `$ref` is among them."""
    parts, references, left = 0, False, [schema]
    while left:
        value = left.pop()
        if isinstance(value, (dict, list)):
            parts += 1
            left += value.values() if isinstance(value, dict) else value
            references = references or "$ref" in value
    return parts, references


def _refused(why: str) -> RequestError:
    return RequestError(
        "guided_decoding_guide is not a json_schema that can be followed",
        found=why,
        param="guided_decoding_guide",
    )
