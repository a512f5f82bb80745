"""The proxy as it is served, before a Triton at an address; prints its port.

python -m proxying.our_proxy --tokenizer DIR --triton HOST:PORT [--workers N]
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from pathlib import Path

from proxying.setting import MAX_SEQ_LEN, MODEL
from server.app import create_app
from server.backend.triton import TritonBackend
from server.config import ServedModel, ServerConfig
from server.run import freeze_memory, run, serve
from server.workers import serve_workers


async def _serve(config: ServerConfig) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)

    def listening(host: str, port: int) -> None:
        print(port, flush=True)

    if config.workers > 1:
        await serve_workers(config, stop=stop, listening=listening)
    else:
        app = create_app(config, TritonBackend(config))
        freeze_memory()
        await serve(app, config, stop=stop, listening=listening)


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--triton", required=True)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    model = ServedModel(name=MODEL, tokenizer_dir=arguments.tokenizer, max_seq_len=MAX_SEQ_LEN)
    run(
        _serve(
            ServerConfig(
                triton_addresses=(arguments.triton,),
                models=(model,),
                port=0,
                workers=arguments.workers,
            )
        )
    )


if __name__ == "__main__":
    main()
