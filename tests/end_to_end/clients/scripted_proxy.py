"""The real proxy over a scripted engine: answers that no small model gives by itself, and faults.

Its model calls functions in Hermes' way when it is told of some, and answers when it has results.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from server.app import create_app
from server.auth.key import ApiKey, digest
from server.backend.base import GenerateRequest
from server.backend.memory import MemoryBackend, Script
from server.config import ServedModel, ServerConfig
from server.errors import InternalError, NotReadyError, OverloadedError
from server.run import serve

TEMPLATE = (
    "{% if tools %}<tools>{{ tools | tojson }}</tools> call as "
    '<tool_call>{"name": "", "arguments": {}}</tool_call>\n{% endif %}'
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'tool' %}<tool_response>{% endif %}"
    "{{ message['content'] or '' }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CALL = '<tool_call>\n{{"name": "{}", "arguments": {}}}\n</tool_call>\n'
CITIES = ("Paris", "London")
SUNNY = "It is sunny in Paris."
KEY, NARROW_KEY = "sk-all-models", "sk-one-model"
RETRY_AFTER_SECONDS = 2
FAULTS: dict[str, Callable[[], Exception]] = {
    "overloaded": lambda: OverloadedError("it's full", retry_after_seconds=RETRY_AFTER_SECONDS),
    "unready": lambda: NotReadyError("Triton can't be reached"),
}
"""Model → what its first FAILURES requests end with; all requests, for "always-" and its name."""
FAILURES = 2
BREAKS: dict[str, Callable[[], dict[str, Any]]] = {
    "silent": lambda: {"hang": True},
    "broken": lambda: {"failure": InternalError("it broke")},
}
"""Model → how it goes on after BEGUN."""
BEGUN = "It is"


@dataclass
class ScriptedProxy:
    """Where it listens, and when each model was asked, in seconds of a monotonic clock."""

    url: str
    asked: dict[str, list[float]] = field(default_factory=dict)


@contextmanager
def scripted_proxy(tokenizer: Path, work: Path, **settings: Any) -> Iterator[ScriptedProxy]:
    """Serve on any free port, in a thread, while the body runs; `settings` are the config's."""
    folder = _folder(tokenizer, work / "hermes")
    reader = Tokenizer.from_file(str(folder / "tokenizer.json"))
    asked: dict[str, list[float]] = {}

    def answer(request: GenerateRequest) -> Script:
        times = asked.setdefault(request.model, [])
        times.append(time.monotonic())
        always, _, fault = request.model.rpartition("-")
        if fault in FAULTS and (always or len(times) <= FAILURES):
            return Script(failure=FAULTS[fault]())
        if request.model in BREAKS:
            begun = reader.encode(BEGUN, add_special_tokens=False).ids
            return Script(messages=[[token] for token in begun], **BREAKS[request.model]())
        prompt = reader.decode(list(request.input_ids), skip_special_tokens=False)
        ids = reader.encode(_text(prompt), add_special_tokens=False).ids
        return Script(messages=[[token] for token in (*ids, request.end_id)])

    models = tuple(
        ServedModel(name=name, triton_model=name, tokenizer_dir=folder, max_seq_len=4096)
        for name in ("hermes", *FAULTS, *(f"always-{fault}" for fault in FAULTS), *BREAKS)
    )
    keys = (
        ApiKey(name="all", sha256=digest(KEY)),
        ApiKey(name="narrow", sha256=digest(NARROW_KEY), models=frozenset({"unready"})),
    )
    config = ServerConfig(
        triton_addresses=("127.0.0.1:1",), models=models, port=0, api_keys=keys, **settings
    )
    with _serving(config, MemoryBackend(answer)) as port:
        yield ScriptedProxy(url=f"http://127.0.0.1:{port}/v1", asked=asked)


def _text(prompt: str) -> str:
    """What the model says: a call for each city that it is asked of, else an answer.

    It calls one at a time where it is asked to, and hands over to whom it can.
    """
    if "<tools>" not in prompt:
        return SUNNY
    if colleague := re.search(r"transfer_to_\w+", prompt):
        return CALL.format(colleague[0], "{}")
    question, told = prompt.rpartition("<|im_start|>user")[2], prompt.count("<tool_response>sunny")
    cities = [city for city in CITIES if city in question]
    wanted = cities[told : told + 1] if "after that" in question else cities[: 0 if told else None]
    calls = (CALL.format("get_weather", json.dumps({"city": city})) for city in wanted)
    return "".join(calls) or SUNNY


def _folder(tokenizer: Path, folder: Path) -> Path:
    shutil.copytree(tokenizer, folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": TEMPLATE}))
    return folder


@contextmanager
def _serving(config: ServerConfig, backend: MemoryBackend) -> Iterator[int]:
    listening: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event, int]] = Future()

    async def run() -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        await serve(
            create_app(config, backend),
            config,
            stop=stop,
            listening=lambda _, port: listening.set_result((loop, stop, port)),
        )

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    loop, stop, port = listening.result(30)
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
