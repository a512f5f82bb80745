"""A conversation as far as it has come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from server.protocol.responses.items import Item


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversation:
    """Items, and about how long their JSON is."""

    items: Sequence[Item] = ()
    size_bytes: int = 0
