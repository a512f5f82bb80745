"""A token stream, read step by step."""

from __future__ import annotations

from server.backend.base import Tokens, TokenStream


async def next_batch(stream: TokenStream) -> list[Tokens]:
    """What it gives at once; [] once it is over."""
    given: list[Tokens] = []

    def take(tokens: list[Tokens]) -> bool:
        given.extend(tokens)
        return False

    await stream.run(take)
    return given
