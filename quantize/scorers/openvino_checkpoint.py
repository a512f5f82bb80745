"""A TensorRT-LLM checkpoint as a scorer: its graph on OpenVINO, in float32, without torch."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Mapping
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np

from builder.checkpoint import Checkpoint
from builder.checkpoint_check import check_names
from builder.convert import ConvertOptions, convert, model_name
from builder.encoder import refuse_encoder
from builder.errors import MissingToolError
from builder.limits import LimitOptions, plan
from builder.safetensors_file import StoredTensor
from builder.source import open_source
from builder.targets.openvino_needs import refuse_contradictions, refuse_unsupported
from quantize.scorers.base import Logits, Tokens, require_length

_NO_CACHE_LIMIT_GIB = 1e6
"""A sequence is computed at once: its keys and values are gone when it's done."""


class CheckpointScorer:
    """A checkpoint of one rank, run as it says it is: what a GPU rounds is rounded.

    `max_length` is that of the longest sequence, in tokens. Raises ArtifactError for a checkpoint
    that is damaged or that the openvino target can't run, MissingToolError without OpenVINO.
    """

    kind = "checkpoint"

    def __init__(
        self, folder: Path, *, name: str | None = None, max_length: int | None = None
    ) -> None:
        checkpoint = Checkpoint.open(folder)
        refuse_encoder(checkpoint.config["architecture"], "an evaluation")
        self.name = name or checkpoint.name
        trained = int(checkpoint.config["max_position_embeddings"])
        self.max_length = min(max_length or trained, trained)
        options = LimitOptions(max_seq_len=self.max_length, kv_cache_gib=_NO_CACHE_LIMIT_GIB)
        refuse_unsupported(checkpoint, plan(checkpoint.config, options))
        self._tensors = checkpoint.tensors()
        check_names(checkpoint, self._tensors)
        refuse_contradictions(checkpoint.config, self._tensors)
        self._request = _compiled(checkpoint.config, self._tensors)

    def logits(self, tokens: Tokens) -> Logits:
        """Logits float32[T, vocabulary] after each of int64[T] tokens."""
        require_length(self.name, tokens, self.max_length)
        count = len(tokens)
        self._request.reset_state()
        outputs = self._request.infer(
            {
                "input_ids": tokens[None],
                "attention_mask": np.ones((1, count), np.int64),
                "position_ids": np.arange(count)[None],
                "beam_idx": np.zeros(1, np.int32),
                "logits_indices": np.arange(count),
            }
        )
        found: Logits = outputs["logits"]
        return found


class ConvertedScorer(CheckpointScorer):
    """A Hugging Face folder or GGUF file, converted to a checkpoint for as long as it is scored."""

    def __init__(self, model: Path, *, max_length: int | None = None) -> None:
        folder = mkdtemp(prefix="trtbuild-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        checkpoint = Path(folder) / "checkpoint"
        dtype = open_source(model).config.dtype
        convert(model, checkpoint, options=ConvertOptions(dtype=dtype))
        super().__init__(checkpoint, name=model_name(model), max_length=max_length)


def _compiled(config: Mapping[str, Any], tensors: Mapping[str, StoredTensor]) -> Any:
    """An infer request of the checkpoint's graph, which takes one sequence, all of it at once."""
    try:
        import openvino
        from openvino import opset15 as ops
    except ImportError:
        raise MissingToolError(
            "scoring a checkpoint needs OpenVINO", do="pip install 'trtbuild[cpu]'"
        ) from None
    from builder.targets.openvino_graph import build_graph
    from builder.targets.openvino_nodes import LOGITS_INDICES, int64

    model = build_graph(config, tensors, exact=True)
    # The graph takes rows of the first axis, where paged attention has the tokens: [1, T, …] here.
    (taken,) = model.input(LOGITS_INDICES).get_target_inputs()
    hidden = taken.get_node().input(0)
    turned = ops.transpose(hidden.get_source_output(), int64([1, 0, 2]))
    hidden.replace_source_output(turned.output(0))
    precise = {
        "INFERENCE_PRECISION_HINT": "f32",
        "KV_CACHE_PRECISION": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
    }
    return openvino.Core().compile_model(model, "CPU", precise).create_infer_request()
