"""Logits of a prompt, by an engine's graph and by transformers, to compare."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from builder.limits import LimitOptions

LIMITS = LimitOptions(max_batch_size=8, max_num_tokens=64, kv_cache_gib=0.05)


def all_logits(engine: Path, ids: list[int], chunk: int) -> Any:
    """Logits float32[len(ids), vocab] of a prompt computed `chunk` tokens at a time."""
    from triton_repo.executor.group import Group
    from triton_repo.executor.request import Request
    from triton_repo.executor.runner import Runner
    from triton_repo.executor.scheduler import Chunk

    runner = Runner(engine, "float32", blocks=16)
    group = Group(Request(input_ids=ids, max_tokens=1), 512, lambda _: None)
    (sequence,) = group.sequences
    sequence.blocks = [3, 1, 7]
    rows = []
    for begin in range(0, len(ids), chunk):
        sequence.computed, end = begin, min(begin + chunk, len(ids))
        step = Chunk(group, sequence, end, first_row=begin)
        rows.append(runner.run([step], []).copy())
    return np.concatenate(rows)


def reference_logits(folder: Path, ids: list[int]) -> Any:
    """The same by transformers."""
    import torch
    import transformers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32)
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].numpy()


def relative_error(found: Any, expected: Any) -> float:
    """The largest difference, in parts of the largest expected number."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())
