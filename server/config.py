"""What the proxy is told at its start. Every default of the proxy is here, once."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from server.auth.key import ApiKey

MAX_WORKERS = 64


@dataclass(frozen=True, kw_only=True)
class ServedEmbedding:
    """What an encoder gives: `dimensions` numbers, of length 1 where it is to `normalize`.

    They may be cut to `matryoshka_dimensions`: None for never, () for any.
    """

    dimensions: int
    normalize: bool = True
    matryoshka_dimensions: tuple[int, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """One model behind the endpoint, and what its engine can do.

    `name` and `aliases` are what clients say; so are the names of LoRA `adapters`, each with its
    id. `tokenizer_dir` holds tokenizer.json and its companions; `max_seq_len` is the engine's
    limit on prompt and answer together, in tokens; `triton_model` is the model in the repository
    that takes token ids, and `kind` whose tensors it has. `task` "embed" is an encoder.
    """

    name: str
    tokenizer_dir: Path
    max_seq_len: int
    max_input_len: int | None = None
    triton_model: str = "tensorrt_llm"
    kind: Literal["tensorrt_llm", "llmapi"] = "tensorrt_llm"
    task: Literal["generate", "embed"] = "generate"
    aliases: tuple[str, ...] = ()
    adapters: Mapping[str, int] = field(default_factory=dict)
    embedding: ServedEmbedding | None = None
    """An encoder's."""
    max_beam_width: int = 1
    guided: bool = False
    """Whether answers can be held to a schema or a grammar."""
    context_logits: bool = False
    generation_logits: bool = False
    """Whether the engine returns logits, of which alternatives' log probabilities are made."""
    vocab_size: int | None = None
    """Of the engine's logits, where it differs from the tokenizer's."""
    tokens_per_block: int = 64
    """Of the KV cache, for the prompt tokens that were reused."""
    chat_template: str | None = None
    """The one for all requests: the name of one of the model's, or a file. None is the model's
    own choice, which may depend on whether there are tools."""
    tool_parser: str = "auto"
    reasoning_parser: str = "auto"
    default_sampling: Literal["model", "openai"] = "model"
    """Whose sampling and length where none is asked for: the model's generation_config.json, or
    OpenAI's."""


@dataclass(frozen=True, kw_only=True)
class TritonTls:
    """PEM files for the connection to Triton: whose certificates it may show (None: the system's
    authorities), and the certificate and key that it may ask of us."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """The proxy's address, its models, and its limits.

    `triton_addresses` are host:port of the gRPC endpoints of one Triton or several alike, plain
    without `triton_tls`; the first of `models` is meant where none is named.
    """

    triton_addresses: tuple[str, ...]
    models: tuple[ServedModel, ...]
    triton_tls: TritonTls | None = None
    triton_metrics_urls: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    max_body_bytes: int = 16 * 1024 * 1024
    max_held_bytes: int = 512 * 1024 * 1024
    """Of the bodies that one worker has at once."""
    max_header_bytes: int = 32 * 1024
    """Of a request's line and headers."""
    header_seconds: float = 10.0
    """How long a client may take to send a request's line and headers."""
    body_seconds: float = 60.0
    """How long it may take then to send the body."""
    keep_alive_seconds: int = 75
    """How long a connection may be silent between two requests."""
    max_connections: int = 16384
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may call the endpoint; "*" is all."""
    api_keys_file: Path | None = None
    """TOML with the keys; see server.auth.keys. Without it and `api_keys`, none is asked for."""
    api_keys: tuple[ApiKey, ...] = ()
    """Further keys."""
    open_metrics: bool = True
    """Whether /metrics asks for no key; else for an admin's."""
    max_prompts: int = 128
    max_choices: int = 128
    max_inputs: int = 2048
    """Texts of one request for embeddings; OpenAI's number."""
    max_in_flight: int = 2048
    max_waiting: int = 2048
    request_timeout_seconds: float | None = None
    """How long a request may take from its arrival; clients may ask for less."""
    drain_seconds: float = 30.0
    drain_notice_seconds: float = 0.0
    """How long /health says no, before the drain begins, to those that choose an endpoint by it."""
    stall_seconds: float = 300.0
    """Without a message from Triton for this long, a request is given up: a model process that
    dies can leave its streams open for ever."""
    reader_seconds: float = 60.0
    """A client that takes nothing of its stream for this long is taken to be gone."""
    comment_seconds: float | None = None
    """A stream that is silent for this long gets a comment, for what closes silent connections
    on the way; its first one takes errors' HTTP status away."""
    responses_dir: Path | None = None
    """Where answers of /v1/responses are kept for later turns; None keeps them as long as the
    endpoint lives: in a lone worker's memory, or in the folder that several share."""
    responses_max_bytes: int = 256 * 1024 * 1024
    """When they take more, the oldest go."""
    responses_max_age_seconds: float = 30 * 24 * 3600.0
    metrics_compat: Literal["vllm"] | None = None
    """Whose names the metrics have besides ours."""
    metrics_with_triton: bool = False
    """Whether /metrics has what Triton's own endpoints show, too."""
    access_log: Path | None = None
    """Where each request is told of in a line of JSON; "-" is standard error."""
    log_prompts: bool = False
    """Whether prompts and answers are in the access log and in traces."""
    record: Path | None = None
    """Where each request is recorded in a line of JSON, for load generators to replay."""
    record_content: bool = False
    """Whether a recording has requests' bodies, in the place of lengths and of prefixes' hashes."""
    record_max_bytes: int = 1024 * 1024 * 1024
    """No more is recorded where it would take more."""
    otlp_traces_endpoint: str | None = None
    """The URL that traces are sent to, by OTLP over HTTP; needs the extra `otel`."""
    shared_dir: Path | None = None
    """A folder that the workers of one endpoint share; there is none for one alone."""
    worker: int = 0
    """Which of the workers this is."""
    began: float = field(default_factory=time.time, compare=False)
    """When the endpoint was started, in seconds since 1970."""
    secret: bytes = field(
        default_factory=lambda: secrets.token_bytes(32), repr=False, compare=False
    )
    """This start's own, for hashes that nobody else can make."""
