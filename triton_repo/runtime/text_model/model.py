"""Triton's `ensemble` and `tensorrt_llm_bls`: text in, text out, the engine's tokens made text as
they come.

Copied into every repository as `model.py` of both; see `triton_repo.runtime` for what travels with
it. One instance has many requests at once: Triton's thread reads them and hands them on, a few
tokenize, and one, with an event loop, calls the engine, makes text and sends it.
"""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

from text.detokenizer import TokenTable
from text.tokenizer_folder import TokenizerFolder
from triton_repo.runtime import GRPC_ADDRESS, GRPC_CERTIFICATE, GRPC_KEY
from triton_repo.runtime.model_arguments import Arguments
from triton_repo.runtime.preprocessing_tensors import Preprocessor
from triton_repo.runtime.text_model.client import Client
from triton_repo.runtime.text_model.exchange import Exchange, Setting
from triton_repo.runtime.text_model.request import Generate

_DEFAULT_ADDRESS = "127.0.0.1:8001"
_TOKENIZING_THREADS = 2
_LOOK_PERIOD_S = 0.02
_LOOKS = 8
"""Clients looked for in a period: a look is a round trip to tritonserver, 0.1 ms and more."""


class TritonPythonModel:
    """What Triton drives."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the tokenizer, and start the thread that answers."""
        given = Arguments(args)
        self._decoupled = pb_utils.using_decoupled_model_transaction_policy(given.config)
        self._calls = _calls(given)
        self._setting = _setting(given, self._calls.generate, decoupled=self._decoupled)
        self._open: dict[asyncio.Task[None], Client] = {}
        self._loop = asyncio.new_event_loop()
        self._busy = asyncio.Event()
        threading.excepthook = _die
        self._thread = threading.Thread(target=self._run, name="answers", daemon=True)
        self._thread.start()

    def execute(self, requests: list[Any]) -> None:
        """Hand the requests on; answers leave through their response senders."""
        for request in requests:
            client = Client(request, decoupled=self._decoupled)
            self._loop.call_soon_threadsafe(self._begin, client)

    def finalize(self) -> None:
        """End what is running, and both kinds of threads."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._setting.tokenizing.shutdown(cancel_futures=True)

    def _run(self) -> None:
        """The thread that answers."""
        asyncio.set_event_loop(self._loop)
        watch = self._loop.create_task(self._watch())
        self._loop.run_forever()
        watch.cancel()
        for task in self._open:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*self._open, return_exceptions=True))
        self._loop.run_until_complete(self._calls.close())

    def _begin(self, client: Client) -> None:
        task = self._loop.create_task(Exchange(self._setting, client).run())
        self._open[task] = client
        task.add_done_callback(self._open.pop)
        self._busy.set()

    async def _watch(self) -> None:
        """Look for the clients of open requests, some at a time, and end what nobody waits for."""
        while True:
            if not self._open:
                self._busy.clear()
                await self._busy.wait()
            unseen = list(self._open.items())
            for start in range(0, len(unseen), _LOOKS):
                await asyncio.sleep(_LOOK_PERIOD_S)
                for task, client in unseen[start : start + _LOOKS]:
                    if not task.done() and client.gone():
                        task.cancel()


def _calls(given: Arguments) -> Any:
    """How to call the engine. Raises TritonModelException where tritonclient is missing."""
    try:
        from triton_repo.runtime.text_model.calls import Calls, Tls
    except ImportError as error:
        raise pb_utils.TritonModelException(
            f"the model needs the Python package tritonclient[grpc] ({error}):"
            " install it where Triton's models run: pip install 'tritonclient[grpc]'"
        ) from error
    address = os.environ.get(GRPC_ADDRESS) or _DEFAULT_ADDRESS
    certificate, key = os.environ.get(GRPC_CERTIFICATE), os.environ.get(GRPC_KEY)
    tls = Tls(certificate=Path(certificate), key=Path(key)) if certificate and key else None
    return Calls(given.text("triton_grpc_address", address), tls)


def _setting(given: Arguments, generate: Generate, *, decoupled: bool) -> Setting:
    """What the model's parameters say."""
    folder = TokenizerFolder(given.path("tokenizer_dir"))
    return Setting(
        generate=generate,
        engine=given.text("tensorrt_llm_model_name", "tensorrt_llm"),
        draft=given.text("tensorrt_llm_draft_model_name") or None,
        decoupled=decoupled,
        preprocessor=Preprocessor(
            given.path("tokenizer_dir"),
            given.path("gpt_model_path") if given.text("gpt_model_path") else None,
            add_special_tokens=given.flag("add_special_tokens", default=True),
        ),
        tokenizing=ThreadPoolExecutor(_TOKENIZING_THREADS, "tokenizing"),
        eos_ids=frozenset(folder.eos_ids),
        table=TokenTable(folder.tokenizer),
        skip_special_tokens=given.flag("skip_special_tokens", default=True),
        accumulate=given.flag("accumulate_tokens", default=False),
        exclude_input=given.flag("exclude_input_in_output", default=True),
    )


def _die(failure: threading.ExceptHookArgs) -> None:
    """A thread that fails leaves clients waiting for ever; a process that ends is started again."""
    threading.__excepthook__(failure)
    os._exit(1)
