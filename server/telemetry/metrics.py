"""All that is counted: one worker's numbers, and the whole endpoint's as /metrics shows them."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict

from server.config import ServerConfig
from server.telemetry import instruments as the
from server.telemetry import vllm
from server.telemetry.board import Board
from server.telemetry.engine import EngineState, TritonMetrics, labelled
from server.telemetry.exchange import CANCELLED, OK
from server.telemetry.exposition import CONTENT_TYPE, expose, families
from server.telemetry.meter import RequestMeter
from server.telemetry.numbers import Numbers
from server.telemetry.tally import Tally

__all__ = ["CANCELLED", "CONTENT_TYPE", "OK", "Metrics", "RequestMeter"]

_POST_SECONDS = 1.0


class Metrics(Numbers):
    """One worker's numbers, and its view of the whole endpoint; belongs to its event loop.

    `config` says whose names labels may have, and which other workers there are; without one, any
    name is taken, and there are none. Raises OSError when the workers' folder can't be written.
    """

    def __init__(self, config: ServerConfig | None = None) -> None:
        self._config = config
        self._served = _names(config)
        super().__init__(self._served if config else None)
        self._board = Board(config.shared_dir / "metrics") if config and config.shared_dir else None
        urls = config.triton_metrics_urls if config else ()
        self._triton = TritonMetrics(urls, _names_in_triton(config))
        self._posting: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Show this worker's numbers to the others from now on."""
        if self._board:
            self._posting = asyncio.create_task(self._post(self._board))

    async def close(self) -> None:
        """Show them for the last time."""
        if self._posting:
            self._posting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._posting
        if self._board:
            self._board.post(self.snapshot())
            self._board.close()
            self._board = None

    async def text(self) -> bytes:
        """Every worker's numbers and the engine's, as Prometheus reads them."""
        engine = await self._triton.read()
        return await asyncio.to_thread(self._render, self.snapshot(), engine)

    def _render(self, total: Tally, engine: EngineState) -> bytes:
        """In a thread of its own: nothing of the event loop's is touched."""
        workers = 1
        if board := self._board:
            # what is told once must stay told, or Prometheus takes it for a restart
            board.post(total)
            others, living = board.others()
            total.merge(others, gauges=True)
            workers += living
        total.set(the.WORKERS, value=workers)
        total.merge(engine.gauges, gauges=True)
        shown = [*families(total, the.INSTRUMENTS)]
        if self._config and self._config.metrics_compat == "vllm":
            translated = vllm.translated(total, self._served)
            shown.extend(families(translated, vllm.INSTRUMENTS))
        text = expose(shown)
        if self._config and self._config.metrics_with_triton:
            text += _of_triton(engine)
        return text

    async def _post(self, board: Board) -> None:
        while True:
            await asyncio.to_thread(board.post, self.snapshot())
            await asyncio.sleep(_POST_SECONDS)


def _of_triton(engine: EngineState) -> bytes:
    """One Triton's text is shown as it is; several Tritons' series must differ in a label."""
    text = labelled(engine.texts) if len(engine.texts) > 1 else "".join(engine.texts.values())
    return text.encode()


def _names(config: ServerConfig | None) -> dict[str, tuple[str, ...]]:
    """A model's name → all that clients may call it, its adapters' names too."""
    models = config.models if config else ()
    return {model.name: (model.name, *model.aliases, *model.adapters) for model in models}


def _names_in_triton(config: ServerConfig | None) -> dict[str, tuple[str, ...]]:
    names: dict[str, list[str]] = defaultdict(list)
    for model in config.models if config else ():
        names[model.triton_model].append(model.name)
    return {triton: tuple(ours) for triton, ours in names.items()}
