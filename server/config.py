"""What the proxy is told at its start. Every default of the proxy is here, once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """One model behind the endpoint.

    `name` is what clients say; `tokenizer_dir` holds tokenizer.json and its companions;
    `max_seq_len` is the engine's limit on prompt and answer together, in tokens;
    `triton_model` is the model in the repository that takes token ids.
    """

    name: str
    tokenizer_dir: Path
    max_seq_len: int
    triton_model: str = "tensorrt_llm"


@dataclass(frozen=True, kw_only=True)
class TritonTls:
    """PEM files for the connection to Triton: whose certificates it may show (None: the system's
    authorities), and the certificate and key that it may ask of us."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """The proxy's address, its model, and its limits.

    `triton_address` is host:port of Triton's gRPC endpoint, plain without `triton_tls`.
    """

    triton_address: str
    model: ServedModel
    triton_tls: TritonTls | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    max_body_bytes: int = 16 * 1024 * 1024
    max_prompts: int = 128
    drain_seconds: float = 30.0
    stall_seconds: float = 300.0
    """Without a message from Triton for this long, a request is given up: a model process that
    dies can leave its streams open for ever."""
    ready_timeout_seconds: float = 2.0
    offload_chars: int = 4096
    """Prompts longer than this are tokenized off the event loop."""
