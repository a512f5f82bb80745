"""A TCP connection to whichever of a name's addresses answers first, as RFC 8305 wants it: one that
never answers costs a quarter of a second, not the whole connection.

asyncio can do this by itself; uvloop can't.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Collection
from typing import Any, Final

_NEXT_SECONDS: Final = 0.25
"""How long an address has before the next is tried beside it."""


async def dial(host: str, port: int) -> socket.socket:
    """A connected socket. Raises OSError: the last that was met."""
    loop = asyncio.get_running_loop()
    addresses = deque(await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    trying: set[asyncio.Task[socket.socket]] = set()
    failure: BaseException = OSError(f"{host} has no address")
    try:
        while addresses or trying:
            if addresses:
                trying.add(asyncio.create_task(_connected(*addresses.popleft())))
            patience = _NEXT_SECONDS if addresses else None
            done, _ = await asyncio.wait(
                trying, timeout=patience, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                trying.remove(task)
                error = task.exception()
                if error is None:
                    return task.result()
                failure = error
    finally:
        await _let_go(trying)
    raise failure


async def _connected(family: int, kind: int, protocol: int, _: str, address: Any) -> socket.socket:
    made = socket.socket(family, kind, protocol)
    try:
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, address)
    except BaseException:
        made.close()
        raise
    return made


async def _let_go(trying: Collection[asyncio.Task[socket.socket]]) -> None:
    for task in trying:
        task.cancel()
    for outcome in await asyncio.gather(*trying, return_exceptions=True):
        if isinstance(outcome, socket.socket):
            outcome.close()
