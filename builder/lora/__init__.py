"""LoRA adapters: a Hugging Face PEFT folder in, the arrays that TensorRT-LLM takes out.

Both engines take the same: a row for each module of each layer, sent with a request or lying in
the folder of `lora_prefetch_dir`.
"""

from __future__ import annotations

from builder.lora.adapter import Adapter, read_adapter
from builder.lora.layout import Place, places
from builder.lora.prefetch import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    is_prefetched,
    read_arrays,
    write_prefetch,
)
from builder.lora.rows import arrays, changed_modules, misread_modules

__all__ = [
    "CONFIG_FILE",
    "WEIGHTS_FILE",
    "Adapter",
    "Place",
    "arrays",
    "changed_modules",
    "is_prefetched",
    "misread_modules",
    "places",
    "read_adapter",
    "read_arrays",
    "write_prefetch",
]
