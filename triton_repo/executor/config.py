"""How an executor is set: the engine's limits, and the model's parameters laid over them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.errors import ArtifactError


@dataclass(frozen=True, kw_only=True)
class ExecutorConfig:
    """The engine's limits, and how the executor schedules within them.

    `max_queue_size` counts answers that haven't begun; 0 is no limit. With
    `enable_chunked_context` off a prompt is computed in one step, so it can't be longer than
    `max_num_tokens`. `max_logits_bytes` is how much a request's context and generation logits may
    come to: they are kept until the answer is sent.
    """

    dtype: str
    vocab_size: int
    max_batch_size: int
    max_seq_len: int
    max_num_tokens: int
    kv_cache_tokens: int
    max_beam_width: int = 1
    max_draft_len: int = 0
    enable_kv_cache_reuse: bool = True
    enable_chunked_context: bool = True
    guaranteed_no_evict: bool = False
    max_queue_size: int = 0
    max_logits_bytes: int = 256 << 20
    threads: int = 0

    @classmethod
    def of(cls, engine: Path, **settings: Any) -> ExecutorConfig:
        """The limits in an engine folder's `config.json`; `settings` are laid over them."""
        try:
            fields = json.loads((engine / "config.json").read_text())
            model, build = fields["pretrained_config"], fields["build_config"]
            limits = {
                "dtype": model["dtype"],
                "vocab_size": model["vocab_size"],
                "max_batch_size": build["max_batch_size"],
                "max_seq_len": build["max_seq_len"],
                "max_num_tokens": build["max_num_tokens"],
                "max_beam_width": build.get("max_beam_width") or 1,
                "max_draft_len": build.get("max_draft_len") or 0,
                "kv_cache_tokens": model["runtime_defaults"]["kv_cache_config"]["max_tokens"],
            }
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(
                f"{engine} is not an engine for this machine",
                found=f"config.json: {error!r}",
                do="build one with trtbuild build --target openvino",
            ) from error
        return cls(**{**limits, **settings})
