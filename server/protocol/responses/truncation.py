"""`truncation`: how the beginning of a conversation goes when it is too long for the model."""

from __future__ import annotations

from collections.abc import Sequence

from server.protocol.responses.items import Item


def beginnings(items: Sequence[Item]) -> list[int]:
    """Where the conversation may begin: at its first item, else at what a user says."""
    says = [i for i, item in enumerate(items) if i and item.get("role") == "user"]
    return [0, *says]


def beginning_at(items: Sequence[Item], start: int) -> list[Item]:
    """The conversation without what comes before `start`, but for what the system says."""
    kept = [item for item in items[:start] if item.get("role") in ("system", "developer")]
    return [*kept, *items[start:]]
