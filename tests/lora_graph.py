"""An engine's graph stepped by hand, several prompts with adapters of their own in each step."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import openvino as ov
from openvino._offline_transformations import paged_attention_transformation

from triton_repo.executor.adapters import Adapter
from triton_repo.executor.lora import LoraInputs

BLOCKS_EACH = 4


class LoraGraph:
    """The compiled graph of a float32 engine with a KV cache of its own."""

    def __init__(self, engine: Path) -> None:
        core = ov.Core()
        model = core.read_model(engine / "openvino_model.xml")
        paged_attention_transformation(model)
        exact = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
        compiled = core.compile_model(model, "CPU", {**exact, "INFERENCE_NUM_THREADS": "1"})
        self.request = compiled.create_infer_request()
        for port in compiled.inputs:
            if "_cache." in port.any_name:
                sizes = [int(str(size)) for size in list(port.partial_shape)[1:]]
                self.request.set_tensor(port, ov.Tensor(port.element_type, [64, *sizes]))
        self.lora = LoraInputs(self.request)

    def run(
        self, prompts: list[list[int]], adapters: list[Adapter | None], chunk: int
    ) -> list[Any]:
        """Logits float32[tokens, vocab] of each prompt, `chunk` tokens of each in a step."""
        rows: list[list[Any]] = [[] for _ in prompts]
        for begin in range(0, max(map(len, prompts)), chunk):
            live = [i for i, ids in enumerate(prompts) if begin < len(ids)]
            parts = [prompts[i][begin : begin + chunk] for i in live]
            logits = self._step(live, parts, begin, [adapters[i] for i in live])
            for i, own in zip(
                live, np.split(logits, np.cumsum([*map(len, parts)])[:-1]), strict=True
            ):
                rows[i].append(own)
        return [np.concatenate(own) for own in rows]

    def _step(
        self, live: list[int], parts: list[list[int]], begin: int, adapters: list[Adapter | None]
    ) -> Any:
        tokens = [token for part in parts for token in part]
        ends = [begin + len(part) for part in parts]
        tables = [
            [i * BLOCKS_EACH + n for n in range(-(-end // 32))]
            for i, end in zip(live, ends, strict=True)
        ]
        inputs: dict[str, Any] = {
            "input_ids": np.array(tokens, np.int64),
            "position_ids": np.concatenate([np.arange(begin, end) for end in ends]),
            "past_lens": np.full(len(live), begin, np.int32),
            "subsequence_begins": np.cumsum([0, *map(len, parts)], dtype=np.int32),
            "block_indices": np.array([block for table in tables for block in table], np.int32),
            "block_indices_begins": np.cumsum([0, *map(len, tables)], dtype=np.int32),
            "max_context_len": np.array(max(ends), np.int32),
            "logits_indices": np.arange(len(tokens)),
        }
        inputs.update(
            self.lora.of([chunk_of(*each, begin) for each in zip(adapters, ends, strict=True)])
        )
        for name, values in inputs.items():
            self.request.set_tensor(name, ov.Tensor(values))
        self.request.infer()
        return self.request.get_output_tensor(0).data.copy()


def chunk_of(adapter: Adapter | None, end: int, begin: int) -> Any:
    """What the inputs look at of the scheduler's Chunk: tokens [begin, end) of a sequence."""
    request = SimpleNamespace(adapter=adapter)
    return SimpleNamespace(sequence=SimpleNamespace(request=request, computed=begin), end=end)
