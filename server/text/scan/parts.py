"""What an answer's text is split into."""

from __future__ import annotations

from typing import NamedTuple

from server.protocol.request import CallDelta


class Parts(NamedTuple):
    """What new text turned out to be. A tuple, as one is made for every token."""

    content: str = ""
    reasoning: str = ""
    calls: tuple[CallDelta, ...] = ()
