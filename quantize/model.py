"""A source model in memory: what it needs is said, and refused, before anything is loaded."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from builder.dtypes import NUMPY
from builder.errors import LimitError, MissingToolError, ModelError
from builder.source import Source
from quantize.options import Device, has_bfloat16
from quantize.quiet import quiet

PROCESS_BYTES = 600_000_000
"""The interpreter with torch, transformers and ModelOpt."""
CALIBRATING = 1.3
"""Times the weights, while a recipe is calibrated (measured: 1.0 FP8, 1.3 SmoothQuant)."""
EXPORTING = 1.7
"""Times the weights, while ModelOpt writes the Hugging Face folder (measured: 1.6)."""
SEARCHING = 2.2
"""Times the weights, while `auto` keeps gradients and what the backward pass needs."""
_GIB = 1 << 30
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes that are free. `gpu_bytes` is None without a GPU.

    `cpu_bfloat16` is whether the CPU has arithmetic for it; without, float32 is five times as fast.
    """

    cpu_bytes: int
    gpu_bytes: int | None = None
    cpu_bfloat16: bool = True


@dataclass(frozen=True, kw_only=True)
class LoadPlan:
    """Where a model goes and what it takes, the calibration included.

    `device` is "cpu" or "cuda"; a `spread` model doesn't fit on the GPU and is divided between it
    and the CPU's memory. `dtype` is what it is loaded in.
    """

    device: str
    dtype: str
    spread: bool
    weights_bytes: int
    needed_bytes: int
    free: Memory

    def __str__(self) -> str:
        """One line for the user."""
        where = f"{self.device} and the CPU's memory" if self.spread else self.device
        return (
            f"{_gib(self.weights_bytes)} of weights in {self.dtype} on {where};"
            f" about {_gib(self.needed_bytes)} of memory needed, {_gib(_total(self))} free"
        )


def free_memory(device: Device) -> Memory:
    """What is free now: of the machine, and of the GPU if `device` may be one.

    Raises MissingToolError when "cuda" is asked for and there is none.
    """
    cpu = Memory(cpu_bytes=_free_cpu_bytes(), cpu_bfloat16=has_bfloat16())
    if device == "cpu":
        return cpu
    import torch

    if not torch.cuda.is_available():
        if device == "cuda":
            raise MissingToolError(
                "there is no CUDA GPU that torch can use",
                do="choose --device cpu, or install a torch that was built for CUDA",
            )
        return cpu
    return replace(cpu, gpu_bytes=torch.cuda.mem_get_info()[0])


def plan_load(
    source: Source,
    *,
    dtype: str,
    batch_tokens: int,
    overhead: float = CALIBRATING,
    free: Memory,
) -> LoadPlan:
    """Where `source` goes. `dtype` is the checkpoint's.

    On a CPU float16 becomes bfloat16, and either becomes float32 where that is faster and fits.
    `batch_tokens` are computed at once, `overhead` is CALIBRATING, EXPORTING or SEARCHING. Raises
    LimitError, with the figures, for a model that the memory can't hold.
    """
    on_gpu = free.gpu_bytes is not None
    loaded_as = "bfloat16" if dtype == "float16" and not on_gpu else dtype
    if loaded_as == "bfloat16" and not on_gpu and not free.cpu_bfloat16:
        with suppress(LimitError):
            return plan_load(
                source, dtype="float32", batch_tokens=batch_tokens, overhead=overhead, free=free
            )
    parameters = sum(math.prod(tensor.shape) for tensor in source.tensors.values())
    weights_bytes = parameters * NUMPY[loaded_as].itemsize
    working = weights_bytes * overhead + _logits_bytes(source, batch_tokens)
    loading = weights_bytes + (4 * parameters if is_gguf(source) else 0)
    needed_bytes = int(max(working, loading)) + (0 if on_gpu else PROCESS_BYTES)
    plan = LoadPlan(
        device="cuda" if on_gpu else "cpu",
        dtype=loaded_as,
        spread=free.gpu_bytes is not None and needed_bytes > free.gpu_bytes,
        weights_bytes=weights_bytes,
        needed_bytes=needed_bytes,
        free=free,
    )
    if needed_bytes > _total(plan):
        raise LimitError(
            f"{source.path} is too large to be calibrated here:"
            f" about {_gib(needed_bytes)} are needed for {_gib(weights_bytes)} of weights",
            found=f"{_gib(_total(plan))} of free memory",
            do="free memory, take a larger machine, or a recipe without calibration (int8_wo)",
        )
    return plan


def is_gguf(source: Source) -> bool:
    """Whether the model is a GGUF file."""
    return source.path.suffix == ".gguf" and source.path.is_file()


def load(source: Source, plan: LoadPlan, *, trust_remote_code: bool = False) -> Any:
    """The model of `source` as transformers has it, in eval mode, where `plan` says.

    Nothing is fetched. Raises ModelError for one that transformers can't load, or of which a
    weight is NaN or infinite; MissingToolError without the `quantize` extra.
    """
    if source.quantization is not None:
        raise ModelError(
            f"{source.path} is quantized already",
            found=source.quantization.format.value,
            do="give the model that it was made from",
        )
    with quiet():
        try:
            model, told = _from_pretrained(source, plan, trust_remote_code)
        except ImportError as error:
            raise MissingToolError(
                "the quantize extra is needed to calibrate",
                found=str(error).splitlines()[0],
                do="pip install 'trtbuild[quantize]'",
            ) from error
        except (OSError, ValueError, KeyError, RuntimeError, AttributeError) as error:
            raise ModelError(
                f"transformers can't load {source.path}",
                found=str(error).strip().splitlines()[0] if str(error).strip() else repr(error),
            ) from error
    # A GGUF file doesn't say, and ModelOpt's export asks.
    model.config.architectures = [source.config.architecture]
    if told["missing_keys"]:
        raise ModelError(
            f"{source.path} lacks weights that transformers' model has",
            found=", ".join(sorted(told["missing_keys"])[:3]),
        )
    _require_finite(model, source)
    return model.eval()


def tokenizer(source: Source) -> Any:
    """The model's tokenizer as transformers has it, from the files that a checkpoint gets."""
    from tempfile import TemporaryDirectory

    with quiet(), TemporaryDirectory() as folder:
        from transformers import AutoTokenizer, PreTrainedTokenizerFast

        for name, read in source.files.items():
            (Path(folder) / name).write_bytes(read())
        load_tokenizer: Any = AutoTokenizer.from_pretrained
        load_plainly: Any = PreTrainedTokenizerFast.from_pretrained
        try:
            return load_tokenizer(folder, local_files_only=True)
        except ValueError:
            # Its class is told by nothing but the config of a model, which isn't here.
            return load_plainly(folder, local_files_only=True)


def _from_pretrained(
    source: Source, plan: LoadPlan, trust_remote_code: bool
) -> tuple[Any, dict[str, Any]]:
    import torch
    import transformers

    place: dict[str, Any] = {}
    if plan.spread:
        place = {"device_map": "auto", "max_memory": _shares(plan)}
    elif plan.device == "cuda":
        place = {"device_map": {"": 0}}
    folder = source.path
    if is_gguf(source):
        folder, place["gguf_file"] = source.path.parent, source.path.name
    load_model: Any = transformers.AutoModelForCausalLM.from_pretrained
    loaded: tuple[Any, dict[str, Any]] = load_model(
        folder,
        dtype=getattr(torch, plan.dtype),
        local_files_only=True,
        trust_remote_code=trust_remote_code,
        output_loading_info=True,
        **place,
    )
    return loaded


def _shares(plan: LoadPlan) -> dict[int | str, int]:
    """The bytes of weights for the GPU and for the CPU: the rest is for calibrating."""
    gpu_bytes = plan.free.gpu_bytes or 0
    left = plan.needed_bytes - plan.weights_bytes
    return {0: max(0, gpu_bytes - left), "cpu": plan.free.cpu_bytes - PROCESS_BYTES}


def _require_finite(model: Any, source: Source) -> None:
    """Raise ModelError, with its name, for the first weight that isn't a number."""
    for name, parameter in model.named_parameters():
        if parameter.device.type != "meta":
            finite = bool(parameter.isfinite().all())
        elif name in source.tensors:
            finite = bool(np.isfinite(source.tensors[name].rows().astype(np.float32)).all())
        else:
            continue
        if not finite:
            raise ModelError(
                f"{source.path} has a weight that isn't a number",
                found=f"NaN or infinity in {name}",
                do="download or train it again: calibrating it would spoil every scale",
            )


def _logits_bytes(source: Source, tokens: int) -> int:
    """A batch's logits in the model's dtype and in float32, and a layer's activations."""
    config = source.config
    widest = max(config.intermediate_size, config.hidden_size)
    return tokens * (6 * config.vocab_size + 16 * widest)


def _free_cpu_bytes() -> int:
    """What the machine has free, or less where the process is in a group with a limit."""
    free = [
        int(line.split()[1]) * 1024
        for line in _MEMINFO.read_text().splitlines()
        if line.startswith("MemAvailable:")
    ]
    limit, used = _CGROUP / "memory.max", _CGROUP / "memory.current"
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        free.append(int(text) - int(used.read_text()))
    return min(free)


def _total(plan: LoadPlan) -> int:
    """The memory that counts: the GPU's with the CPU's behind it, or the CPU's."""
    if plan.free.gpu_bytes is None:
        return plan.free.cpu_bytes
    return plan.free.gpu_bytes + max(0, plan.free.cpu_bytes - PROCESS_BYTES)


def _gib(count: int) -> str:
    return f"{count / _GIB:,.2f} GiB"
