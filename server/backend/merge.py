"""Several token streams as one, where all that is ready leaves together.

A reader that is slower than the engine finds everything that came in the meantime in one
batch, so its cost per token falls as load rises.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from server.backend.base import Tokens, TokenStream


class Merge:
    """Reads `streams` at once; `next_batch` gives what has come as [(stream index, tokens), …].

    Of each stream no more is read ahead than it gives at once, so its own bound holds. Close it
    when done with it: that cancels what still runs.
    """

    def __init__(self, streams: Sequence[TokenStream]) -> None:
        self._streams = streams
        self._running = set(range(len(streams)))
        self._stopped: set[int] = set()
        self._unread: list[tuple[int, list[Tokens]]] = []
        self._failure: BaseException | None = None
        self._arrived = asyncio.Event()
        self._read = asyncio.Event()
        self._pumps = [asyncio.create_task(self._pump(i)) for i in range(len(streams))]

    async def next_batch(self) -> list[tuple[int, Tokens]]:
        """All that is ready, as soon as something is; [] once every stream has ended.

        A stream's error is raised after what came before it was given.
        """
        while True:
            while not self._unread and self._failure is None and self._running:
                self._arrived.clear()
                await self._arrived.wait()
            if not self._unread and self._failure is not None:
                raise self._failure
            unread, self._unread = self._unread, []
            self._read.set()
            stopped = self._stopped
            batch = [
                (index, one) for index, tokens in unread if index not in stopped for one in tokens
            ]
            if batch or not self._running:
                return batch

    def stop(self, index: int) -> None:
        """Cancel one stream, of which nothing comes any more; the others go on."""
        self._stopped.add(index)
        self._running.discard(index)
        self._streams[index].cancel()
        self._pumps[index].cancel()
        self._arrived.set()

    def close(self) -> None:
        """Cancel every stream that isn't over."""
        for index in range(len(self._streams)):
            self.stop(index)

    async def _pump(self, index: int) -> None:
        def take(tokens: list[Tokens]) -> bool:
            self._unread.append((index, tokens))
            self._arrived.set()
            return False

        try:
            while await self._streams[index].run(take):
                while any(index == unread for unread, _ in self._unread):
                    self._read.clear()
                    await self._read.wait()
        except Exception as error:  # noqa: BLE001 - handed to the reader, who raises it
            if index not in self._stopped:
                self._failure = self._failure or error
        finally:
            self._running.discard(index)
            self._arrived.set()
