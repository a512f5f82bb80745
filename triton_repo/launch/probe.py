"""Asks a server for a token: that a model is called ready says nothing of whether it still answers.

Triton calls a model ready whose process hangs, or has died.
"""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from builder.errors import LaunchError

TOKEN_IDS = {
    "input_ids": [1],
    "input_lengths": 1,
    "request_output_len": 1,
    "streaming": False,
}
EMBEDDING = {"input_ids": [1], "input_lengths": 1}
TEXT = {"text_input": "1", "sampling_param_max_tokens": 1, "streaming": False}
REQUESTS = {"openvino": TOKEN_IDS, "tensorrt-llm": TOKEN_IDS, "llmapi": TEXT}
"""Target → the least request to the model that runs its engine, as /generate takes it; an encoder
takes EMBEDDING."""

_DEATH_S = 1.0
"""A server that dies fails a probe too; its death is the better reason and is known by then."""
_BUSY = re.compile(r"maximum queue size|max_queue_size|queue is full", re.IGNORECASE)
"""A refusal of a server that works, as much as it can."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Which models to ask, with what, how often, and how long an answer may take.

    A busy server answers a probe in its turn: `timeout_s` is to allow for the longest queue.
    """

    requests: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    interval_s: float = 30.0
    timeout_s: float = 60.0


def ask(address: str, model: str, request: Mapping[str, Any], timeout_s: float) -> float:
    """Have `model` generate, at the HTTP endpoint `address` (host:port); how long it took, in s.

    Raises LaunchError where it doesn't.
    """
    began = time.monotonic()
    connection = http.client.HTTPConnection(address, timeout=timeout_s)
    try:
        connection.request("POST", f"/v2/models/{model}/generate", json.dumps(request))
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
    except TimeoutError as error:
        raise LaunchError(f"{model} gave no token within {timeout_s:g} s") from error
    except (OSError, http.client.HTTPException) as error:
        raise LaunchError(f"{model} gave no token", found=str(error) or repr(error)) from error
    finally:
        connection.close()
    complaint = _error(text) if answer.status != 200 or '"error"' in text else None
    if complaint is not None and not _BUSY.search(complaint):
        raise LaunchError(f"{model} gave no token", found=complaint)
    return time.monotonic() - began


class Prober:
    """Probes a server on a thread of its own until it is stopped, or a model fails.

    Then `failed` is called with the reason, on that thread. A model among `unloaded`, which is
    asked after a failure, may fail.
    """

    def __init__(
        self,
        probe: Probe,
        address: str,
        failed: Callable[[str], None],
        unloaded: Callable[[], Collection[str]] = tuple,
    ) -> None:
        self._probe, self._address = probe, address
        self._failed, self._unloaded = failed, unloaded
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        threading.Thread(target=self._run, name="triton-probe", daemon=True).start()

    def stop(self) -> None:
        """No probe and no complaint from now on."""
        with self._lock:
            self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self._probe.interval_s):
            try:
                for model, request in self._probe.requests.items():
                    self._ask(model, request)
            except LaunchError as error:
                self._stopped.wait(_DEATH_S)
                with self._lock:
                    if not self._stopped.is_set():
                        self._failed(str(error))
                return

    def _ask(self, model: str, request: Mapping[str, Any]) -> None:
        try:
            ask(self._address, model, request, self._probe.timeout_s)
        except LaunchError:
            if model not in self._unloaded():
                raise


def _error(text: str) -> str:
    try:
        return str(json.loads(text)["error"])[:300]
    except (ValueError, KeyError, TypeError):
        return text[:300]
