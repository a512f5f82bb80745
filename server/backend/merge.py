"""Several token streams as one, where all that is ready leaves together.

A reader that is slower than the engine finds everything that came in the meantime in one
batch, so its cost per token falls as load rises. Sources wait while too much is unread.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from types import TracebackType

from server.backend.base import Tokens

MAX_UNREAD_MESSAGES = 256


class Merge:
    """Reads `sources` at once; `next_batch` gives what has come as [(source index, tokens), …].

    Use as a context manager: leaving it cancels every source. A source's error is raised
    after what came before it was given.
    """

    def __init__(self, sources: Sequence[AsyncIterator[Tokens]]) -> None:
        self._unread: list[tuple[int, Tokens]] = []
        self._failure: BaseException | None = None
        self._arrived = asyncio.Event()
        self._read = asyncio.Event()
        self._open = len(sources)
        self._pumps = [
            asyncio.create_task(self._pump(index, source)) for index, source in enumerate(sources)
        ]

    async def __aenter__(self) -> Merge:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    def stop(self, index: int) -> None:
        """Cancel one source; the others go on."""
        self._pumps[index].cancel()

    async def next_batch(self) -> list[tuple[int, Tokens]]:
        """All that is ready, as soon as something is; [] once every source has ended."""
        while not self._unread and self._failure is None and self._open:
            self._arrived.clear()
            await self._arrived.wait()
        if not self._unread and self._failure is not None:
            raise self._failure
        batch, self._unread = self._unread, []
        self._read.set()
        return batch

    async def _pump(self, index: int, source: AsyncIterator[Tokens]) -> None:
        try:
            async for tokens in source:
                self._unread.append((index, tokens))
                self._arrived.set()
                if len(self._unread) >= MAX_UNREAD_MESSAGES:
                    self._read.clear()
                    await self._read.wait()
        except Exception as error:  # noqa: BLE001 - handed to the reader, who raises it
            self._failure = self._failure or error
        finally:
            if isinstance(source, AsyncGenerator):
                await source.aclose()
            self._open -= 1
            self._arrived.set()
