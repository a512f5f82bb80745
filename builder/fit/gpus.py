"""An engine's ranks against a place's GPUs: compute capability, number, and memory for weights."""

from __future__ import annotations

from collections.abc import Iterator

from builder import gpus as known
from builder.errors import LimitError
from builder.fit.engine import BuiltEngine
from builder.fit.mend import anew, another_layout
from builder.fit.mismatch import Agreement, Found, Mismatch, Unknown
from builder.fit.place import Place, described
from builder.machine.gpu import InstalledGpu
from builder.memory.rank import gib

_TIGHT = 0.9
"""With more than this part of the free memory taken by weights little is left for a KV cache."""


def capability(built: BuiltEngine, place: Place) -> Iterator[Found]:
    """An engine runs on the compute capability that it was built on, and on no other."""
    what = "compute capability"
    if not place.gpus:
        yield Unknown(what=what, why=place.no_gpus)
        return
    if built.sm is None:
        yield Unknown(what=what, why="the engine doesn't say on which GPU it was built")
        return
    same = _same(built, place)
    if not same:
        on = f" ({built.gpu_name})" if built.gpu_name else ""
        yield Mismatch(
            what=what,
            engine=f"built for SM {built.sm}{on}",
            found=described(place.gpus),
            do=f"run it on a GPU of SM {built.sm}, or build it again",
            command=anew(built, place),
        )
        return
    yield Agreement(what=what, value=f"SM {built.sm}")
    ranks = same[: built.ranks_here]
    if place.counted and list(place.gpus[: len(ranks)]) != ranks:
        chosen = ",".join(str(gpu.index) for gpu in ranks)
        yield Mismatch(
            what=what,
            engine=f"built for SM {built.sm}",
            found=f"GPUs of several kinds: {described(place.gpus)}",
            do=f"choose those that fit: CUDA_VISIBLE_DEVICES={chosen}",
        )
    if built.gpu_name and not any(_same_model(built.gpu_name, gpu.name) for gpu in same):
        yield Mismatch(
            what="GPU model",
            engine=f"tuned on {built.gpu_name}",
            found=described(tuple(same)),
            do="it loads, perhaps slower; for speed build it again",
            command=anew(built, place),
            fatal=False,
        )


def count(built: BuiltEngine, place: Place) -> Iterator[Found]:
    """A GPU for each rank that runs here. CUDA gives a process one MIG slice at most."""
    if place.gpus == ():
        yield Mismatch(
            what="GPUs",
            engine=_wanted(built),
            found="no NVIDIA GPU that CUDA may use",
            do="run it where there is one, or build with --target openvino",
        )
        return
    if not place.gpus or not place.counted:
        why = place.no_gpus if not place.gpus else "how many GPUs there are is not known"
        yield Unknown(what="GPUs", why=why)
        return
    usable = _same(built, place) or list(place.gpus)
    if any(gpu.mig for gpu in usable):
        usable = usable[:1]
    if len(usable) >= built.ranks_here:
        yield Agreement(what="GPUs", value=f"{len(usable)} for {built.world_size} ranks")
        return
    yield Mismatch(
        what="GPUs",
        engine=_wanted(built),
        found=described(tuple(usable)),
        do=another_layout(built, len(usable)),
        command=anew(built, place),
    )


def memory(built: BuiltEngine, place: Place) -> Iterator[Found]:
    """Whether each rank's weights fit its GPU, and leave room for a KV cache."""
    what = "GPU memory"
    usable = [gpu for gpu in _same(built, place) or place.gpus or () if gpu.memory_bytes]
    sizes = [size for size in built.weights_bytes[: built.ranks_here] if size is not None]
    if not usable or not sizes or built.streams_weights:
        why = place.no_gpus if not usable else "its size isn't that of its weights"
        yield Unknown(what=what, why=why)
        return
    if not place.counted:
        usable = usable * len(sizes)
    size, gpu = max(
        zip(sizes, usable, strict=False), key=lambda pair: pair[0] / max(1, pair[1].free_bytes)
    )
    needs = f"{gib(size)} of weights on a rank"
    if size > gpu.memory_bytes:
        found, do = f"{gib(gpu.memory_bytes)} on {gpu.name}", another_layout(built, None)
        yield Mismatch(what=what, engine=needs, found=found, do=do, command=anew(built, place))
    elif size > gpu.free_bytes:
        found = f"{gib(gpu.free_bytes)} free of {gib(gpu.memory_bytes)} on GPU {gpu.index}"
        do = "stop what holds the rest (nvidia-smi shows it)"
        yield Mismatch(what=what, engine=needs, found=found, do=do)
    elif size > _TIGHT * gpu.free_bytes:
        found = f"{gib(gpu.free_bytes)} free on GPU {gpu.index}"
        do = "expect few requests at once: little is left for the KV cache"
        yield Mismatch(what=what, engine=needs, found=found, do=do, fatal=False)
    else:
        yield Agreement(what=what, value=f"{gib(size)} of weights in {gib(gpu.free_bytes)}")


def _same(built: BuiltEngine, place: Place) -> list[InstalledGpu]:
    """The GPUs of the engine's capability, and those whose own isn't known."""
    return [gpu for gpu in place.gpus or () if built.sm in (None, gpu.sm) or not gpu.sm]


def _same_model(one: str, other: str) -> bool:
    try:
        return known.find(one).name == known.find(other).name
    except LimitError:
        return one == other


def _wanted(built: BuiltEngine) -> str:
    return f"{built.world_size} ranks, one GPU each" if built.world_size > 1 else "one GPU"
