"""What every script shares: it uses its client for each feature, and prints what it saw as JSON."""

from __future__ import annotations

import json
import sys
import time
import traceback
import urllib.request
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

MODEL, ENCODER, CALLER = "smollm2", "minilm", "hermes"
FRANCE = "What is the capital of France?"
WEATHER = "What is the weather in Paris?"
TWO_CITIES = "What is the weather in Paris and London?"
STEPS = "What is the weather in Paris, and after that in London?"
CITY_PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Paris", "London", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}
FUNCTION = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "parameters": CITY_PARAMETERS,
}
TOOL: dict[str, Any] = {"type": "function", "function": FUNCTION}
RESPONSES_TOOL: dict[str, Any] = {"type": "function", "strict": True, **FUNCTION}


@dataclass(frozen=True, kw_only=True)
class Urls:
    """The endpoints' base URLs: the live stack, and the proxy over a scripted engine."""

    live: str
    scripted: str
    key: str
    narrow_key: str

    def live_fields(self, retries: int = 0) -> dict[str, Any]:
        """An OpenAI client's arguments."""
        return {"base_url": self.live, "api_key": "none", "max_retries": retries, "timeout": 120}

    def scripted_fields(self, retries: int = 0) -> dict[str, Any]:
        """The same for the other."""
        fields = self.live_fields(retries)
        return {**fields, "base_url": self.scripted, "api_key": self.key}


def user(text: str) -> Any:
    """The messages of one question."""
    return [{"role": "user", "content": text}]


def failure(call: Callable[[], object]) -> dict[str, Any]:
    """The class of the error that `call` ends with, and its HTTP status."""
    error = _outcome(call).exception()
    return {"error": type(error).__name__, "status": getattr(error, "status_code", None)}


def freed(urls: Urls, model: str, within_s: float = 60) -> bool:
    """Whether the scripted engine's `model` is left in peace, by the proxy's own metrics."""
    none = f'trtbuild_requests_in_flight{{model="{model}"}} 0.0'
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        with urllib.request.urlopen(urls.scripted.removesuffix("/v1") + "/metrics") as metrics:
            if none in metrics.read().decode().splitlines():
                return True
        time.sleep(0.1)
    return False


def report(features: list[Callable[[Urls], object]]) -> None:
    """Run the features at once; print {name: what it saw, or {"failed": traceback}}."""
    urls = Urls(**json.loads(sys.argv[1]))
    with ThreadPoolExecutor(4) as threads:
        runs = {feature.__name__: threads.submit(feature, urls) for feature in features}
    print(json.dumps({name: _seen(run) for name, run in runs.items()}))


def _outcome(call: Callable[[], object]) -> Future[object]:
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(call)


def _seen(run: Future[object]) -> object:
    error = run.exception()
    return {"failed": "".join(traceback.format_exception(error))} if error else run.result()
