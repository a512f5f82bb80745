"""The proxy's instruments, as data: what each is called, what it counts, and by which labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# The bounds of vLLM and trtllm-serve where there are any, so that quantiles compare; with finer
# steps at the bottom, where a fast engine's inter-token latencies and a short queue lie.
_TTFT_SECONDS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
    1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
)  # fmt: skip
_ITL_SECONDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75,
    1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
_E2E_SECONDS = (
    0.05, 0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0,
    120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0,
)  # fmt: skip
_STAGE_SECONDS = (0.001, 0.005, 0.01, 0.025, *_E2E_SECONDS)
_TOKENS = tuple(float(digit * 10**power) for power in range(6) for digit in (1, 2, 5))

MODEL = ("model",)


@dataclass(frozen=True, kw_only=True, slots=True)
class Instrument:
    """One metric family. A counter's name is shown with `_total`; histograms have `bounds`."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = MODEL
    bounds: tuple[float, ...] = ()


REQUESTS = Instrument(
    name="trtbuild_requests",
    kind="counter",
    help="Requests by model, endpoint and outcome: ok, cancelled (the client left), or the status",
    labels=("model", "endpoint", "outcome"),
)
ERRORS = Instrument(
    name="trtbuild_errors",
    kind="counter",
    help="Requests that ended with an error, by what went wrong",
    labels=("model", "endpoint", "error"),
)
FINISHED = Instrument(
    name="trtbuild_choices_finished",
    kind="counter",
    help="Answers by why they ended: a finish reason, abort or error",
    labels=("model", "reason"),
)
PROMPT_TOKENS = Instrument(
    name="trtbuild_prompt_tokens", kind="counter", help="Prompt tokens taken"
)
CACHED_TOKENS = Instrument(
    name="trtbuild_cached_tokens",
    kind="counter",
    help="Prompt tokens whose KV cache blocks were there from earlier requests",
)
LOOKED_UP_TOKENS = Instrument(
    name="trtbuild_cache_queried_tokens",
    kind="counter",
    help="Prompt tokens of the requests whose reuse of KV cache blocks the engine told",
)
GENERATED_TOKENS = Instrument(
    name="trtbuild_generated_tokens", kind="counter", help="Tokens generated"
)
IN_FLIGHT = Instrument(
    name="trtbuild_requests_in_flight", kind="gauge", help="Requests being answered"
)
WAITING = Instrument(
    name="trtbuild_requests_waiting",
    kind="gauge",
    help="Requests that wait for one of the proxy's places in flight",
    labels=(),
)
WORKERS = Instrument(
    name="trtbuild_workers", kind="gauge", help="The proxy's live worker processes", labels=()
)
LOST_LINES = Instrument(
    name="trtbuild_lost_lines",
    kind="counter",
    help="Lines that couldn't be written: of the access log, or of the recording",
    labels=("file",),
)
TRITON_UP = Instrument(
    name="trtbuild_triton_metrics_up",
    kind="gauge",
    help="Whether Triton's metrics endpoint answered when it was last asked",
    labels=("url",),
)
KV_BLOCKS_USED = Instrument(
    name="trtbuild_kv_cache_blocks_used", kind="gauge", help="KV cache blocks in use"
)
KV_BLOCKS_MAX = Instrument(
    name="trtbuild_kv_cache_blocks_max", kind="gauge", help="KV cache blocks in all"
)
ENGINE_RUNNING = Instrument(
    name="trtbuild_engine_requests_running", kind="gauge", help="Requests in the engine's batch"
)
ENGINE_WAITING = Instrument(
    name="trtbuild_engine_requests_waiting", kind="gauge", help="Requests in the engine's queue"
)
TTFT = Instrument(
    name="trtbuild_time_to_first_token_seconds",
    kind="histogram",
    help="From the request's arrival to its first token",
    bounds=_TTFT_SECONDS,
)
ITL = Instrument(
    name="trtbuild_inter_token_latency_seconds",
    kind="histogram",
    help="Between messages with tokens of one answer",
    bounds=_ITL_SECONDS,
)
E2E = Instrument(
    name="trtbuild_request_seconds",
    kind="histogram",
    help="From the request's arrival to its last byte, of requests that were answered",
    bounds=_E2E_SECONDS,
)
QUEUE = Instrument(
    name="trtbuild_queue_seconds",
    kind="histogram",
    help="What a request waited, in the proxy and (where it is told) in the engine's queue",
    bounds=_STAGE_SECONDS,
)
ENGINE_QUEUE = Instrument(
    name="trtbuild_engine_queue_seconds",
    kind="histogram",
    help="From a request's arrival in the engine to its first step",
    bounds=_STAGE_SECONDS,
)
ENGINE_PREFILL = Instrument(
    name="trtbuild_engine_prefill_seconds",
    kind="histogram",
    help="From a request's first step to its first token, in the engine",
    bounds=_STAGE_SECONDS,
)
ENGINE_DECODE = Instrument(
    name="trtbuild_engine_decode_seconds",
    kind="histogram",
    help="From a request's first token to its last, in the engine",
    bounds=_STAGE_SECONDS,
)
ENGINE_TIME = Instrument(
    name="trtbuild_engine_seconds",
    kind="histogram",
    help="From a request's first step to its last token, in the engine",
    bounds=_STAGE_SECONDS,
)
TPOT = Instrument(
    name="trtbuild_time_per_output_token_seconds",
    kind="histogram",
    help="Between the tokens of a request, on its average, after the first",
    bounds=_ITL_SECONDS,
)
REQUEST_PROMPT = Instrument(
    name="trtbuild_request_prompt_tokens",
    kind="histogram",
    help="Prompt tokens of a request",
    bounds=_TOKENS,
)
REQUEST_GENERATED = Instrument(
    name="trtbuild_request_generated_tokens",
    kind="histogram",
    help="Tokens generated for a request",
    bounds=_TOKENS,
)

INSTRUMENTS = tuple(value for value in list(vars().values()) if isinstance(value, Instrument))
BY_NAME = {instrument.name: instrument for instrument in INSTRUMENTS}
