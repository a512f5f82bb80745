"""Where an engine is to run, as far as an engine cares: versions, driver and GPUs.

This machine, a container on it, or a GPU by its name: what isn't known of a place is None.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from builder import gpus, versions
from builder.errors import LimitError
from builder.machine import Machine, container_engine, tensorrt_llm
from builder.machine.gpu import InstalledGpu
from builder.machine.smi import Nvidia, nvidia
from builder.machine.software import InstalledTensorRtLlm
from builder.targets.tensorrt_llm.container import probe
from builder.versions import Release


@dataclass(frozen=True, kw_only=True)
class Place:
    """A place. `gpus` is () where there surely is none, None where that isn't known.

    `counted` is whether all GPUs of it are known, not just their kind. `made_for_driver` is what
    its CUDA was made with. `no_versions` and `no_gpus` say why those aren't known.
    """

    name: str
    image: str | None = None
    tensorrt_llm: str | None = None
    tensorrt: str | None = None
    cuda: str | None = None
    made_for_driver: str | None = None
    driver: str | None = None
    gpus: tuple[InstalledGpu, ...] | None = None
    counted: bool = True
    no_versions: str = "no TensorRT-LLM here; name a container: --container TAG"
    no_gpus: str = "no GPU here; name one: --gpu NAME"


def place_of(against: Machine | Release | Place | None) -> Place:
    """The place that is meant: None is this machine."""
    if isinstance(against, Place):
        return against
    if isinstance(against, Release):
        return _of_release(against, versions.image(against), nvidia())
    if against is None:
        return _machine(nvidia(), tensorrt_llm())
    return _machine(against.nvidia, against.tensorrt_llm)


def place(*, container: str | None = None, gpu: str | None = None) -> Place:
    """This machine; with `container` (image or tag) and `gpu` (name) in place of what is here.

    Raises LimitError for a container or a GPU that isn't known.
    """
    found = place_of(None) if container is None else in_container(container)
    return found if gpu is None else with_gpu(found, gpu)


def in_container(image_or_tag: str, here: Nvidia | None = None) -> Place:
    """A container by its image or tag, with the GPUs and driver of this machine (asked if None).

    An image whose name doesn't say what it holds is run and asked, where there is a container
    engine. Raises LimitError, or MissingToolError, where that can't be known.
    """
    machine = nvidia() if here is None else here
    try:
        release = versions.release_of_image(image_or_tag)
    except LimitError:
        # a bare tag means one of NVIDIA's images
        named = "/" in image_or_tag or ":" in image_or_tag
        if not named or not (engine := container_engine()):
            raise
        return _asked(engine, image_or_tag, machine)
    return _of_release(release, versions.full_name(image_or_tag), machine)


def _of_release(release: Release, image: str, machine: Nvidia) -> Place:
    return Place(
        name=image,
        image=image,
        tensorrt_llm=release.tensorrt_llm,
        tensorrt=release.tensorrt,
        cuda=release.cuda,
        made_for_driver=release.driver,
        driver=machine.driver,
        gpus=machine.gpus or None,
        no_gpus=_why_no_gpus(machine),
    )


def _asked(engine: str, image: str, machine: Nvidia) -> Place:
    found = probe(engine, image)
    return Place(
        name=image,
        image=image,
        tensorrt_llm=found.get("version"),
        tensorrt=found.get("tensorrt"),
        cuda=found.get("cuda"),
        driver=machine.driver,
        gpus=machine.gpus or None,
        no_versions="the image doesn't say",
        no_gpus=_why_no_gpus(machine),
    )


def with_gpu(found: Place, name: str) -> Place:
    """The place with GPUs of a name, in whatever number. Raises LimitError for an unknown name."""
    gpu = gpus.find(name)
    size_bytes = gpu.memory_bytes or 0
    known = InstalledGpu(
        index=0, name=gpu.name, sm=gpu.sm, memory_bytes=size_bytes, free_bytes=size_bytes
    )
    # the driver that is here drives other GPUs
    return replace(
        found,
        name=f"{found.name} with {gpu.name}" if found.image else gpu.name,
        gpus=(known,),
        counted=False,
        driver=None,
        no_gpus=f"nothing is known of the machine with {gpu.name}",
    )


def _machine(found: Nvidia, installed: InstalledTensorRtLlm | None) -> Place:
    silent = found.present and found.problem and not found.hidden
    return Place(
        name="this machine",
        tensorrt_llm=installed.version if installed else None,
        tensorrt=installed.tensorrt if installed else None,
        cuda=installed.cuda if installed else None,
        driver=found.driver,
        gpus=found.gpus or (None if silent else ()),
        no_gpus=_why_no_gpus(found),
    )


def _why_no_gpus(found: Nvidia) -> str:
    if found.hidden:
        return "CUDA_VISIBLE_DEVICES hides them"
    return f"{found.problem}; {found.do}" if found.present and found.problem else Place.no_gpus


def described(found: tuple[InstalledGpu, ...]) -> str:
    """GPUs in words: "2 NVIDIA L4 (SM 89), 1 NVIDIA A100 (SM 80)"."""
    kinds = Counter((f"{gpu.name} {gpu.mig or ''}".strip(), gpu.sm) for gpu in found)
    return ", ".join(
        f"{count} {name} (SM {sm or 'unknown'})" for (name, sm), count in kinds.items()
    )
