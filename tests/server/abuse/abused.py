"""A proxy in a process of its own, with little patience and an engine that never stops."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from server.app import create_app
from server.backend.base import GenerateRequest, Take, Tokens
from server.config import ServedModel, ServerConfig
from server.run import run, serve

MODEL = "m"
PATIENCE_SECONDS = 2.0
"""For heads, bodies and readers."""
MAX_BODY_BYTES = 4 * 1024 * 1024
MAX_HEADER_BYTES = 32 * 1024
_MESSAGES, _TOKENS = 8, 512
"""In each batch, in each message: much to send for little work."""


class Endless:
    """A backend whose model says one token again and again, as fast as it is read."""

    def generate(self, request: GenerateRequest) -> EndlessStream:
        """As many as are asked for."""
        return EndlessStream(request)

    async def embed(
        self, model: str, input_ids: Sequence[int], *, trace: Mapping[str, str]
    ) -> Sequence[float]:
        """Nothing to speak of."""
        return [0.0]

    async def ready(self, model: str) -> bool:
        """Always."""
        return True

    async def close(self) -> None:
        """Nothing to let go."""


class EndlessStream:
    """One request of it."""

    def __init__(self, request: GenerateRequest) -> None:
        self._left, self._token = request.max_tokens, request.input_ids[-1]

    async def run(self, take: Take) -> bool:
        """Many at once."""
        while self._left:
            await asyncio.sleep(0)
            batch = []
            while self._left and len(batch) < _MESSAGES:
                count = min(_TOKENS, self._left)
                self._left -= count
                batch.append(Tokens(ids=(self._token,) * count, final=not self._left))
            if not take(batch):
                return True
        return False

    def cancel(self) -> None:
        """No more."""
        self._left = 0


class Proxy:
    """The process and its port."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.port = process, port

    @property
    def rss_bytes(self) -> int:
        """The memory that it has in use."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024


@contextmanager
def proxy(folder: Path) -> Iterator[Proxy]:
    """Serve the model of `folder` for the length of the context."""
    command = [sys.executable, __file__, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Proxy(process, int(process.stdout.readline()))
            assert process.poll() is None, "it lives on"
        finally:
            process.kill()


def main(folder: Path) -> None:
    """Serve until killed."""
    model = ServedModel(name=MODEL, tokenizer_dir=folder, max_seq_len=2**31 - 1)
    config = ServerConfig(
        triton_addresses=("127.0.0.1:1",),
        models=(model,),
        port=0,
        max_body_bytes=MAX_BODY_BYTES,
        max_header_bytes=MAX_HEADER_BYTES,
        header_seconds=PATIENCE_SECONDS,
        body_seconds=PATIENCE_SECONDS,
        reader_seconds=PATIENCE_SECONDS,
        keep_alive_seconds=30,
        max_in_flight=64,
        max_waiting=64,
    )
    app = create_app(config, Endless())
    listening = lambda _, port: print(port, flush=True)  # noqa: E731
    run(serve(app, config, stop=asyncio.Event(), listening=listening))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
