"""What Triton's own metrics endpoints tell of the engine, asked for only when somebody asks us."""

from __future__ import annotations

import asyncio
import http.client
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from server.telemetry import instruments as the
from server.telemetry.instruments import Instrument
from server.telemetry.tally import Tally

_FRESH_SECONDS = 1.0
_TIMEOUT_SECONDS = 2.0
_MAX_BYTES = 8 * 1024 * 1024
_PIECE_BYTES = 64 * 1024
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Triton is near: the environment's proxies aren't for it."""
_clock = time.monotonic

_FIGURES: Mapping[tuple[str, str, str], Instrument] = {
    ("nv_trt_llm_kv_cache_block_metrics", "kv_cache_block_type", "used"): the.KV_BLOCKS_USED,
    ("nv_trt_llm_kv_cache_block_metrics", "kv_cache_block_type", "max"): the.KV_BLOCKS_MAX,
    ("nv_trt_llm_request_metrics", "request_type", "scheduled"): the.ENGINE_RUNNING,
    ("nv_trt_llm_request_metrics", "request_type", "waiting"): the.ENGINE_WAITING,
}
"""Family, label and value → what it is to us. Source: tensorrt_llm's custom_metrics_reporter.cc."""
_FAMILIES = tuple({family for family, _, _ in _FIGURES})


@dataclass(frozen=True, kw_only=True)
class EngineState:
    """One look at all endpoints: our gauges, and each endpoint's text."""

    gauges: Tally
    texts: Mapping[str, str]


class TritonMetrics:
    """Asks the endpoints `urls`. `models` are the names that clients know of a Triton model."""

    def __init__(self, urls: tuple[str, ...], models: Mapping[str, tuple[str, ...]]) -> None:
        self._urls, self._models = urls, models
        self._state = EngineState(gauges=Tally(), texts={})
        self._read_at = float("-inf")
        self._lock = asyncio.Lock()

    async def read(self) -> EngineState:
        """The state, at most a second old. An endpoint that doesn't answer has no part in it."""
        if not self._urls:
            return self._state
        async with self._lock:
            if _clock() - self._read_at > _FRESH_SECONDS:
                texts = await asyncio.gather(*(asyncio.to_thread(_get, u) for u in self._urls))
                found = dict(zip(map(_shown, self._urls), texts, strict=True))
                self._state = await asyncio.to_thread(self._understood, found)
                self._read_at = _clock()
        return self._state

    def _understood(self, texts: Mapping[str, str | None]) -> EngineState:
        gauges = Tally()
        for url, text in texts.items():
            gauges.set(the.TRITON_UP, url, value=text is not None)
            for instrument, model, value in _figures(text or ""):
                for name in self._models.get(model, ()):
                    gauges.add(instrument, name, amount=value)
        return EngineState(gauges=gauges, texts={u: t for u, t in texts.items() if t is not None})


def labelled(texts: Mapping[str, str]) -> str:
    """All that the endpoints show, each series with its endpoint's URL as label `triton`.

    As text: Triton's counters don't end in `_total`, as a library would have them.
    """
    heads: dict[str, dict[str, None]] = {}
    series: dict[str, list[str]] = {}
    for url, text in texts.items():
        family = ""
        for line in text.splitlines():
            if line.startswith(("# HELP ", "# TYPE ")):
                family = line.split()[2]
                heads.setdefault(family, {})[line] = None
            elif line and not line.startswith("#"):
                series.setdefault(family, []).append(_with_label(line, f'triton="{url}"'))
    lines = (line for family, found in series.items() for line in (*heads.get(family, ()), *found))
    return "".join(f"{line}\n" for line in lines)


def _shown(url: str) -> str:
    """The URL without a user and a password."""
    scheme, _, rest = url.partition("//")
    host, slash, path = rest.partition("/")
    return f"{scheme}//{host.rpartition('@')[2]}{slash}{path}"


def _with_label(line: str, label: str) -> str:
    name, brace, rest = line.partition("{")
    if brace:
        return f"{name}{{{label},{rest}"
    name, _, value = line.partition(" ")
    return f"{name}{{{label}}} {value}"


def _figures(text: str) -> Iterator[tuple[Instrument, str, float]]:
    lines = (line for line in text.splitlines() if line.startswith(_FAMILIES))
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        for sample in family.samples:
            for label, value in sample.labels.items():
                instrument = _FIGURES.get((sample.name, label, value))
                if instrument:
                    yield instrument, sample.labels.get("model", ""), sample.value


def _read(response: http.client.HTTPResponse, deadline: float) -> bytes:
    """All of it. Raises OSError for what is too large, or drips: each read alone is in time."""
    content = bytearray()
    while piece := response.read1(_PIECE_BYTES):
        content += piece
        if len(content) > _MAX_BYTES or _clock() > deadline:
            raise OSError("the answer is too large, or too slow")
    return bytes(content)


def _get(url: str) -> str | None:
    try:
        with _OPENER.open(url, timeout=_TIMEOUT_SECONDS) as response:
            text = _read(response, _clock() + _TIMEOUT_SECONDS).decode()
        # what can't be read is as good as not told
        list(_figures(text))
    except (OSError, http.client.HTTPException, ValueError):
        return None
    return text
