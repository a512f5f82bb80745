"""Runs the engine's graph on the OpenVINO runtime, over a paged KV cache that it owns."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino._offline_transformations import paged_attention_transformation

from builder.errors import ArtifactError, LimitError
from builder.machine.resources import memory
from triton_repo.executor.lora import LoraInputs
from triton_repo.executor.output import Logits
from triton_repo.executor.scheduler import Chunk

MODEL_FILE = "openvino_model.xml"


class Runner:
    """A compiled engine: `run` computes one step and gives back the logits that are wanted."""

    def __init__(self, engine: Path, dtype: str, blocks: int, *, threads: int = 0) -> None:
        core = ov.Core()
        try:
            model = core.read_model(engine / MODEL_FILE)
        except RuntimeError as error:
            raise ArtifactError(
                f"{engine / MODEL_FILE} can't be loaded",
                found=str(error).strip().splitlines()[-1],
                do="build the engine again",
            ) from error
        paged_attention_transformation(model)
        compiled = core.compile_model(model, "CPU", _properties(core, dtype, threads))
        self._request = compiled.create_infer_request()
        self._caches = _caches(compiled, blocks)
        for name, cache in self._caches.items():
            self._request.set_tensor(name, cache)
        self._lora = LoraInputs(self._request)

    @property
    def cache_bytes(self) -> int:
        """How much memory the KV cache takes."""
        return sum(cache.byte_size for cache in self._caches.values())

    def run(self, chunks: list[Chunk], copies: list[tuple[int, int]]) -> Logits:
        """Copy blocks (from, to), then compute a step; logits float32[rows, vocab].

        There is a row for each token of a chunk from its `first_row` on. The array is the
        engine's own and is overwritten by the next step.
        """
        for source, target in copies:
            for cache in self._caches.values():
                cache.data[target] = cache.data[source]
        for name, values in {**step_inputs(chunks), **self._lora.of(chunks)}.items():
            self._request.set_tensor(name, ov.Tensor(values))
        self._request.infer()
        logits: Logits = self._request.get_output_tensor(0).data
        return logits


def step_inputs(chunks: list[Chunk]) -> Mapping[str, NDArray[Any]]:
    """The inputs of the paged graph for one step: all chunks' tokens in one row.

    `subsequence_begins` and `block_indices_begins` say where each chunk's tokens and blocks
    start; `logits_indices` are the rows that are wanted.
    """
    starts = [chunk.sequence.computed for chunk in chunks]
    sizes = [chunk.end - start for chunk, start in zip(chunks, starts, strict=True)]
    begins = np.cumsum([0, *sizes], dtype=np.int32)
    tables = [chunk.sequence.blocks for chunk in chunks]
    tokens: list[int] = []
    positions: list[int] = []
    wanted: list[int] = []
    for chunk, start in zip(chunks, starts, strict=True):
        wanted.extend(range(len(tokens) + chunk.first_row - start, len(tokens) + chunk.end - start))
        tokens.extend(chunk.sequence.ids(start, chunk.end))
        positions.extend(range(start, chunk.end))
    return {
        "input_ids": np.array(tokens, np.int64),
        "position_ids": np.array(positions, np.int64),
        "past_lens": np.array(starts, np.int32),
        "subsequence_begins": begins,
        "block_indices": np.array([block for table in tables for block in table], np.int32),
        "block_indices_begins": np.cumsum([0, *map(len, tables)], dtype=np.int32),
        "max_context_len": np.array(max(chunk.end for chunk in chunks), np.int32),
        "logits_indices": np.array(wanted, np.int64),
    }


def _properties(core: ov.Core, dtype: str, threads: int) -> dict[str, str]:
    """float32 engines compute in float32, the others in bfloat16 where the CPU has it.

    The cache has the planned size either way: 32 bits a number, or 16. On one core bfloat16 is left
    alone: with AMX, OpenVINO 2026.4 splits a layer's threads in two, and divides by none.
    """
    cores = len(os.sched_getaffinity(0))
    threads = min(threads, cores) if threads else cores
    capable = threads > 1 and "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    half = dtype != "float32"
    return {
        "INFERENCE_PRECISION_HINT": "bf16" if half and capable else "f32",
        "KV_CACHE_PRECISION": ("bf16" if capable else "f16") if half else "f32",
        # Inputs aren't rounded to 8 bits unless the graph says so.
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
        "INFERENCE_NUM_THREADS": str(threads),
        "PERFORMANCE_HINT": "LATENCY",
        # A step has one of many lengths, and the plugin keeps what it compiles for each.
        "CPU_RUNTIME_CACHE_CAPACITY": "100",
    }


def _caches(compiled: ov.CompiledModel, blocks: int) -> dict[str, ov.Tensor]:
    """Key and value caches, [blocks, kv heads, block tokens, head size] for each layer."""
    inputs = {name: port for port in compiled.inputs for name in port.names if "_cache." in name}
    shapes = {name: [blocks, *list(port.partial_shape)[1:]] for name, port in inputs.items()}
    sizes = {
        name: int(np.prod([int(str(n)) for n in shapes[name]])) * port.element_type.size
        for name, port in inputs.items()
    }
    _refuse_too_large(sum(sizes.values()))
    return {
        name: ov.Tensor(
            np.zeros(sizes[name], np.uint8), [int(str(n)) for n in shapes[name]], port.element_type
        )
        for name, port in inputs.items()
    }


def _refuse_too_large(size_bytes: int) -> None:
    available = memory().available_bytes
    if size_bytes > available:
        raise LimitError(
            "the KV cache doesn't fit this machine's memory",
            found=f"{size_bytes / 2**30:.1f} GiB wanted, {available / 2**30:.1f} GiB available",
            do="build with a smaller --kv-cache-gib",
        )
