"""Promise: what a model needs is known before it is loaded, and what isn't a number is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from builder.errors import LimitError, ModelError
from builder.source import Source, open_source
from quantize.model import CALIBRATING, Memory, free_memory, load, plan_load

MB = 1_000_000
PLENTY = Memory(cpu_bytes=10**12)


def plan(source: Source, dtype: str = "bfloat16", free: Memory = PLENTY):  # type: ignore[no-untyped-def]
    return plan_load(source, dtype=dtype, batch_tokens=64, overhead=CALIBRATING, free=free)


@pytest.fixture
def llama(tiny_models: dict[str, Path]) -> Source:
    return open_source(tiny_models["llama"])


def test_a_cpu_without_bfloat16_computes_in_float32_where_that_fits(llama: Source) -> None:
    slow = replace(PLENTY, cpu_bfloat16=False)
    assert plan(llama, "bfloat16", slow).dtype == "float32"
    tight = replace(slow, cpu_bytes=plan(llama, "float32").needed_bytes - 1)
    assert plan(llama, "bfloat16", tight).dtype == "bfloat16"
    assert plan(llama, "bfloat16", replace(slow, gpu_bytes=1 << 40)).dtype == "bfloat16"


def test_a_cpu_never_computes_in_float16(llama: Source) -> None:
    assert plan(llama, "float16").dtype == "bfloat16"
    assert plan(llama, "float32").dtype == "float32"
    gpu = replace(PLENTY, gpu_bytes=10**12)
    assert plan(llama, "float16", gpu).dtype == "float16"


def test_the_weights_are_counted_in_the_dtype_that_they_are_loaded_in(llama: Source) -> None:
    count = sum(int(np.prod(tensor.shape)) for tensor in llama.tensors.values())
    assert plan(llama).weights_bytes == 2 * count
    assert plan(llama, "float32").weights_bytes == 4 * count
    assert plan(llama).needed_bytes > 2 * count * CALIBRATING


def test_a_model_that_memory_cannot_hold_is_refused_with_the_figures(llama: Source) -> None:
    with pytest.raises(LimitError, match=r"about 0\.56 GiB .* found 0\.47 GiB of free memory"):
        plan(llama, free=Memory(cpu_bytes=500 * MB))


def test_a_model_larger_than_the_gpu_is_spread_over_both_memories(llama: Source) -> None:
    small = Memory(cpu_bytes=10**12, gpu_bytes=1 * MB)
    spread = plan(llama, free=small)
    assert spread.spread
    assert "cuda and the CPU's memory" in str(spread)
    assert not plan(llama, free=replace(small, gpu_bytes=10**12)).spread
    with pytest.raises(LimitError, match="too large"):
        plan(llama, free=Memory(cpu_bytes=1 * MB, gpu_bytes=1 * MB))


def test_a_gguf_file_is_counted_as_it_is_read_in_float32(smollm2_gguf: Path) -> None:
    """transformers keeps all of it in float32 while it makes the model."""
    found = plan(open_source(smollm2_gguf))
    assert found.needed_bytes > 3 * found.weights_bytes


def test_free_memory_is_what_the_machine_says() -> None:
    available = [
        int(line.split()[1]) * 1024
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemAvailable")
    ]
    assert 0 < free_memory("cpu").cpu_bytes <= 1.2 * available[0]


@pytest.mark.reference
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_not_a_number_is_named(
    tiny_models: dict[str, Path], tmp_path: Path, value: float
) -> None:
    folder = tmp_path / "spoilt"
    folder.mkdir()
    for file in tiny_models["llama"].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    content = bytearray((folder / "model.safetensors").read_bytes())
    size = int.from_bytes(content[:8], "little")
    name = "model.layers.1.mlp.up_proj.weight"
    begin, _ = json.loads(content[8 : 8 + size])[name]["data_offsets"]
    at = 8 + size + begin + 40
    content[at : at + 4] = np.float32(value).tobytes()
    (folder / "model.safetensors").write_bytes(content)
    source = open_source(folder)
    with pytest.raises(ModelError, match=f"NaN or infinity in {name}"):
        load(source, plan(source))


@pytest.mark.reference
def test_a_model_is_loaded_in_the_plans_dtype(llama: Source) -> None:
    import torch

    model = load(llama, plan(llama))
    assert model.dtype == torch.bfloat16
    assert not model.training


@pytest.mark.reference
def test_a_gguf_model_has_the_weights_that_convert_reads(smollm2_gguf: Path) -> None:
    source = open_source(smollm2_gguf)
    model = load(source, plan(source, "float32"))
    name = "model.layers.7.self_attn.q_proj.weight"
    found = dict(model.named_parameters())[name].detach().numpy()
    assert np.array_equal(found, source.tensors[name].rows().astype(np.float32))
