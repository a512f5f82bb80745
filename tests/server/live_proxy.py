"""The real application on uvicorn and a loopback port, for real clients."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import openai

from server.app import create_app
from server.backend.base import Backend
from server.config import ServedModel, ServerConfig
from server.edge.application import Application
from server.run import serve

MODEL = "tiny/model"


@dataclass(frozen=True, kw_only=True)
class LiveProxy:
    """A running proxy and clients for it."""

    url: str
    openai: openai.AsyncOpenAI
    http: httpx2.AsyncClient
    stop: asyncio.Event
    hurry: asyncio.Event
    app: Application
    serving: asyncio.Task[None]

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rpartition(":")[2])


def served(
    folder: Path, *, name: str = MODEL, max_seq_len: int = 256, **values: Any
) -> ServedModel:
    """A model for tests."""
    return ServedModel(name=name, tokenizer_dir=folder, max_seq_len=max_seq_len, **values)


def config(
    folder: Path, *, max_seq_len: int = 256, model: dict[str, Any] | None = None, **values: Any
) -> ServerConfig:
    """A config for tests: any free port, one model; `model` are further fields of it."""
    models = (served(folder, max_seq_len=max_seq_len, **(model or {})),)
    defaults = {"triton_addresses": ("127.0.0.1:1",), "models": models, "port": 0}
    return ServerConfig(**{**defaults, **values})


async def closed(writer: asyncio.StreamWriter) -> None:
    """Once a client's connection is."""
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


@asynccontextmanager
async def live_proxy(settings: ServerConfig, backend: Backend) -> AsyncIterator[LiveProxy]:
    """Serve for the length of the context."""
    app = create_app(settings, backend)
    stop, hurry = asyncio.Event(), asyncio.Event()
    address = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(
        serve(
            app,
            settings,
            stop=stop,
            hurry=hurry,
            listening=lambda host, port: address.set_result(port),
        )
    )
    url = f"http://127.0.0.1:{await address}"
    client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    http = httpx2.AsyncClient(base_url=url, timeout=120, trust_env=False)
    try:
        async with client, http:
            yield LiveProxy(
                url=url, openai=client, http=http, stop=stop, hurry=hurry, app=app, serving=serving
            )
    finally:
        stop.set()
        await asyncio.wait_for(serving, 60)
