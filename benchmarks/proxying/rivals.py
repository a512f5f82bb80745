"""The proxies that are measured side by side, each before an engine that answers at one pace."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from proxying.processes import Process, command, module
from proxying.setting import MODEL


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the files of a measurement are."""

    work: Path
    tokenizer: Path
    ids: Path


@contextmanager
def triton(place: Place, *options: object) -> Iterator[Process]:
    """The fake Triton."""
    with module("fake_triton", "--ids", place.ids, *options) as process:
        yield process


@contextmanager
def ours(place: Place, engine: Process, workers: int = 1) -> Iterator[Process]:
    """The proxy, as it is served."""
    options = ("--tokenizer", place.tokenizer, "--triton", f"127.0.0.1:{engine.port}")
    with module("our_proxy", *options, "--workers", workers) as process:
        yield process


def has_plain() -> bool:
    """Whether what the plain proxy is made of is installed."""
    return find_spec("fastapi") is not None


@contextmanager
def plain(place: Place, engine: Process) -> Iterator[Process]:
    """The proxy that one writes in a day."""
    options = ("--tokenizer", place.tokenizer, "--triton", f"127.0.0.1:{engine.port}")
    with module("plain_proxy", *options) as process:
        yield process


@contextmanager
def writer(step_ms: float) -> Iterator[Process]:
    """An endpoint that has its events ready: what is left is the system's work and the loop's."""
    with module("fake_openai", "--step-ms", step_ms) as process:
        yield process


@contextmanager
def litellm(place: Place, python: Path, step_ms: float) -> Iterator[Process]:
    """LiteLLM's proxy before an OpenAI endpoint, which asks less of it: no text of its own."""
    with module("fake_openai", "--step-ms", step_ms) as endpoint:
        base = f"http://127.0.0.1:{endpoint.port}/v1"
        parameters = {"model": f"openai/{MODEL}", "api_base": base, "api_key": "none"}
        config = {
            "model_list": [{"model_name": MODEL, "litellm_params": parameters}],
            "litellm_settings": {"telemetry": False},
        }
        path = place.work / "litellm.json"  # JSON is YAML
        path.write_text(json.dumps(config))
        port = _free_port()
        words = [str(python.parent / "litellm"), "--config", str(path), "--port", str(port)]
        words += ["--host", "127.0.0.1", "--num_workers", "1", "--telemetry", "False"]
        with command(
            words,
            port,
            log=place.work / "litellm.log",
            LITELLM_LOCAL_MODEL_COST_MAP="True",
            LITELLM_LOG="ERROR",
            LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY="true",
            PYTHONPATH="",
        ) as process:
            yield process


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
