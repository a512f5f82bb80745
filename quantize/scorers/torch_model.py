"""A model of transformers as a scorer: one in memory, plain or fake-quantized, or one to load."""

from __future__ import annotations

from typing import Any

import numpy as np

from builder.convert import model_name
from builder.source import Source
from quantize.model import free_memory, plan_load
from quantize.model import load as load_model
from quantize.scorers.base import Logits, Tokens, require_length

_TOKENS = 512
"""About how many are computed at once."""


class TorchScorer:
    """A causal language model of transformers, or one that answers as they do, where it lies.

    It is put in eval mode and otherwise left as it is: what ModelOpt does to it meanwhile counts.
    """

    kind = "torch"

    def __init__(self, model: Any, *, name: str) -> None:
        self.name = name
        self._model = model.eval()

    def logits(self, tokens: Tokens) -> Logits:
        """Logits float32[T, vocabulary] after each of int64[T] tokens, in the model's own dtype."""
        import torch

        longest = getattr(self._model.config, "max_position_embeddings", None)
        require_length(self.name, tokens, longest)
        device = self._model.get_input_embeddings().weight.device
        with torch.no_grad():
            inputs = torch.from_numpy(tokens)[None].to(device)
            logits = self._model(input_ids=inputs, use_cache=False).logits[0]
        found: Logits = logits.float().cpu().numpy().astype(np.float32, copy=False)
        return found


def load(source: Source) -> TorchScorer:
    """Load a model to be scored: on a GPU in its own dtype, on a CPU in float32.

    Raises as `quantize.model.load` does, LimitError where memory doesn't hold it.
    """
    free = free_memory("auto")
    dtype = "float32" if free.gpu_bytes is None else source.config.dtype
    plan = plan_load(source, dtype=dtype, batch_tokens=_TOKENS, overhead=1.0, free=free)
    return TorchScorer(load_model(source, plan), name=model_name(source.path))
