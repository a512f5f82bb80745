"""What is asked of kept responses in the URL, and lists of their items."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from server.errors import InvalidRequestError, shown
from server.protocol.responses.body import check_include
from server.protocol.responses.items import Item
from server.protocol.validation import check_range, require

_DEFAULT_LIMIT: Final = 20
_MAX_LIMIT: Final = 100
_NEUTRAL: Final = {"stream": "false", "starting_after": "", "include_obfuscation": "false"}
"""The parameters of a stream that was told before, and their values that ask for none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """Which items: at most `limit`, those after the one whose id is `after`."""

    limit: int = _DEFAULT_LIMIT
    is_ascending: bool = False
    after: str | None = None


def read_page(query: Iterable[tuple[str, str]]) -> Page:
    """What the query of a list asks for; the newest come first. Raises InvalidRequestError."""
    given = _query(query, {"limit", "order", "after"})
    limit, order = given.get("limit", str(_DEFAULT_LIMIT)), given.get("order", "desc")
    is_number = limit.isascii() and limit.isdecimal() and len(limit) < 10
    require(is_number, "a number is wanted - 'limit'", param="limit")
    check_range("limit", int(limit), 1, _MAX_LIMIT)
    require(order in ("asc", "desc"), "asc or desc is wanted - 'order'", param="order")
    return Page(limit=int(limit), is_ascending=order == "asc", after=given.get("after"))


def page_json(items: Sequence[Item], page: Page) -> dict[str, Any]:
    """The list. Raises InvalidRequestError when there is no item to come after."""
    ordered = list(items if page.is_ascending else reversed(items))
    if page.after is not None:
        ids = [item["id"] for item in ordered]
        known = page.after in ids
        require(known, f"no item '{shown(page.after)}' in the list - 'after'", param="after")
        ordered = ordered[ids.index(page.after) + 1 :]
    told = ordered[: page.limit]
    return {
        "object": "list",
        "data": told,
        "first_id": told[0]["id"] if told else "",
        "last_id": told[-1]["id"] if told else "",
        "has_more": len(ordered) > len(told),
    }


def read_retrieval(query: Iterable[tuple[str, str]]) -> None:
    """Check the query for one response: it is told as it was kept, and not streamed again.

    Raises InvalidRequestError.
    """
    given = _query(query, set(_NEUTRAL))
    for name, neutral in _NEUTRAL.items():
        complaint = f"'{name}' can't be honoured: only responses in the background stream again"
        require(given.get(name, neutral) == neutral, complaint, param=name)


def _query(query: Iterable[tuple[str, str]], known: set[str]) -> dict[str, str]:
    """The parameters, each accounted for; `include` is checked, and changes nothing."""
    given: dict[str, str] = {}
    included = []
    for name, value in query:
        if name.partition("[")[0] == "include":
            included.append(value)
        elif name not in known:
            raise InvalidRequestError(f"Unknown parameter: '{shown(name)}'.", param=shown(name))
        else:
            given[name] = value
    check_include(included)
    return given
