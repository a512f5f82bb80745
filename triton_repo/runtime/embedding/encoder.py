"""An encoder's engine on the OpenVINO runtime."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from triton_repo.runtime.embedding.batches import Ids, Limits, calls, padded

MODEL_FILE = "openvino_model.xml"
Embedding = NDArray[np.float32]


class Encoder:
    """The engine in a folder, compiled. Raises OSError, ValueError, KeyError and RuntimeError."""

    def __init__(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        self.limits = Limits.of(config)
        core = ov.Core()
        model = core.read_model(folder / MODEL_FILE)
        properties = _properties(core, config["pretrained_config"]["dtype"])
        self._request = core.compile_model(model, "CPU", properties).create_infer_request()

    def embed(self, texts: Sequence[Ids]) -> list[Embedding]:
        """The embedding of each text, in as few calls as the engine's limits allow."""
        found: dict[int, Embedding] = {}
        for places in calls([len(ids) for ids in texts], self.limits):
            rows, lengths = padded([texts[place] for place in places])
            self._request.infer({"input_ids": rows, "input_lengths": lengths})
            # the runtime writes the next call's over it
            made = self._request.get_output_tensor(0).data.copy()
            found.update(zip(places, made, strict=True))
        return [found[place] for place in range(len(texts))]


def _properties(core: ov.Core, dtype: str) -> dict[str, str]:
    """float32 engines compute in float32, the others in bfloat16 where the CPU has it."""
    capable = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return {
        "INFERENCE_PRECISION_HINT": "bf16" if dtype != "float32" and capable else "f32",
        "INFERENCE_NUM_THREADS": str(len(os.sched_getaffinity(0))),
        "PERFORMANCE_HINT": "LATENCY",
        # A call has one of many shapes, and the plugin keeps what it compiles for each.
        "CPU_RUNTIME_CACHE_CAPACITY": "100",
    }
