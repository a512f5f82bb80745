"""One worker's process, which the supervisor starts: `main`.

Its standard input brings the order, and ends when the supervisor does. It says on its standard
output, in lines of JSON, that it listens to signals, that it takes requests, or why it never will.
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import BinaryIO

from server.config import ServerConfig
from server.edge.application import Application
from server.errors import TrtbuildError
from server.run import freeze_memory, run, serve

TRITON_APP = "server.workers.worker:triton_app"


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a worker is to serve. `application` is MODULE:FUNCTION, which makes an Application of
    the config, inside the event loop."""

    config: ServerConfig
    application: str = TRITON_APP

    def to_bytes(self) -> bytes:
        """For a worker's standard input."""
        pickled = pickle.dumps(self)
        return len(pickled).to_bytes(8, "little") + pickled

    @staticmethod
    def read(file: BinaryIO) -> Order:
        """The other way; `file` is the supervisor's pipe, which no one else writes to."""
        size_bytes = int.from_bytes(file.read(8), "little")
        order: Order = pickle.loads(file.read(size_bytes))
        return order


def triton_app(config: ServerConfig) -> Application:
    """The proxy before its Tritons."""
    from server.app import create_app
    from server.backend.triton import TritonBackend

    return create_app(config, TritonBackend(config))


def main() -> int:
    """Serve as ordered, until told to stop or left alone; the exit code."""
    said = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed
    order = Order.read(sys.stdin.buffer)

    def say(ready: bool, error: str = "") -> None:
        print(json.dumps({"ready": ready, "error": error}), file=said, flush=True)

    try:
        run(_serve(order, say))
    except (TrtbuildError, OSError) as error:
        say(False, str(error))
        return 1
    return 0


async def _serve(order: Order, say: Callable[[bool], None]) -> None:
    stop, hurry = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(number: int) -> None:
        # a second SIGTERM says nothing new: a service manager may tell us and the supervisor too
        if number == signal.SIGINT:
            hurry.set()
        stop.set()

    def on_input() -> None:
        loop.remove_reader(0)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal, number)
    loop.add_reader(0, on_input)
    loop.add_signal_handler(signal.SIGHUP, lambda: app.reload_keys())  # from the supervisor
    say(False)
    module, _, function = order.application.partition(":")
    app: Application = getattr(import_module(module), function)(order.config)
    freeze_memory()
    await serve(app, order.config, stop=stop, hurry=hurry, listening=lambda *_: say(True))
