"""The GPUs that an engine is built on, which are of the kind that it will run on."""

from __future__ import annotations

from dataclasses import dataclass, replace

from builder import gpus, machine
from builder.errors import LimitError, MissingToolError, TrtbuildError
from builder.gpus import Gpu
from builder.machine import InstalledGpu

_NEAR = 0.05
"""Of its memory, a GPU may show so much more or less than the table has."""


@dataclass(frozen=True, kw_only=True)
class LocalGpus:
    """What to build for, and on how many GPUs; `problem` is why that can't be here.

    `gpu` has the memory that it really has; where what was asked for isn't here, it is that, and
    `count` is None. It is None where none is here or was asked for.
    """

    gpu: Gpu | None
    count: int | None = None
    problem: TrtbuildError | None = None


def look(asked: Gpu | None) -> LocalGpus:
    """The GPUs that the compiler sees here; `asked` is what they should be."""
    found = machine.gpus()
    if not found:
        return LocalGpus(gpu=asked, problem=_none())
    if len({gpu.sm for gpu in found}) > 1:
        return LocalGpus(gpu=asked, problem=_mixed(found))
    here = _known(min(found, key=lambda gpu: gpu.memory_bytes))
    if asked is not None and not _is_same(asked, here):
        return LocalGpus(gpu=asked, problem=_other(asked, here))
    return LocalGpus(gpu=here, count=len(found))


def _known(installed: InstalledGpu) -> Gpu:
    try:
        known = gpus.find(installed.name)
    except LimitError:
        known = Gpu(name=installed.name, sm=installed.sm, source="nvidia-smi")
    return replace(known, sm=installed.sm, memory_gib=installed.memory_bytes / (1 << 30))


def _is_same(asked: Gpu, here: Gpu) -> bool:
    """Whether a GPU is the one that was asked for, as far as it was: of a generation, any is.

    Forms of one model (PCIe, SXM) with the same memory build the same.
    """
    if asked.sm != here.sm or asked.memory_gib is None or here.memory_gib is None:
        return asked.sm == here.sm
    near = abs(asked.memory_gib - here.memory_gib) < _NEAR * asked.memory_gib
    return near and _model(asked) == _model(here)


def _model(gpu: Gpu) -> str:
    return gpu.name.partition("-")[0]


def _text(gpu: Gpu) -> str:
    memory = f", {gpu.memory_gib:.0f} GiB" if gpu.memory_gib else ""
    return f"{gpu.name} (SM {gpu.sm}{memory})"


def _none() -> MissingToolError:
    return MissingToolError(
        "there is no GPU to build with, and TensorRT builds only on the kind that it runs on",
        found="none that CUDA may use",
        do="build on a machine with one (trtbuild doctor says what is amiss here), see what would"
        " be done with --dry-run --gpu NAME, or use --target openvino",
    )


def _mixed(found: list[InstalledGpu]) -> LimitError:
    return LimitError(
        "the GPUs here are of different kinds, and an engine is for one",
        found=", ".join(f"{gpu.index}: {gpu.name} (SM {gpu.sm})" for gpu in found),
        do="choose those of one kind with CUDA_VISIBLE_DEVICES",
    )


def _other(asked: Gpu, here: Gpu) -> LimitError:
    return LimitError(
        f"an engine for {_text(asked)} can't be built here",
        found=_text(here),
        do=f"build it on a machine with {asked.name}, or leave out --gpu",
    )
