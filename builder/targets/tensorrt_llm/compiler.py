"""Which engine compiler builds: the `trtllm-build` installed here, or the one in a container."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder import machine, versions
from builder.errors import LimitError, MissingToolError
from builder.machine.software import COMPILER
from builder.machine.software import container as container_engine
from builder.targets.tensorrt_llm.container import Container, is_rootless, probe

AUTO = "auto"
"""The image that the last TensorRT-LLM with engines is in."""

OLDEST = (1, 0)
"""The flags and defaults here are 1.2's. 1.0 knows all that are always written, and a flag that it
doesn't know its compiler refuses. Before it, defaults differ (blocks of 64 tokens, prompts without
paged attention), and older ones lack --max_seq_len and --kv_cache_type."""


@dataclass(frozen=True, kw_only=True)
class Compiler:
    """A compiler and the versions that its engines are bound to; None is not known."""

    program: str
    tensorrt_llm: str
    tensorrt: str | None
    cuda: str | None
    container: Container | None = None

    def command(
        self, arguments: Sequence[str], *, reads: Iterable[Path], writes: Iterable[Path]
    ) -> list[str]:
        """Its command line. `reads` and `writes` are the folders that the arguments name."""
        words = [self.program, *arguments]
        if self.container is None:
            return words
        return self.container.command(words, reads=reads, writes=writes)

    @property
    def image(self) -> str | None:
        """The image that it is in."""
        return self.container.image if self.container else None

    @property
    def aftermath(self) -> list[str]:
        """What to run after it was killed."""
        return self.container.removal if self.container else []

    @property
    def made_by(self) -> dict[str, str]:
        """Its versions, as a manifest has them."""
        found = {"tensorrt_llm": self.tensorrt_llm, "tensorrt": self.tensorrt, "cuda": self.cuda}
        return {name: version for name, version in found.items() if version}

    def __str__(self) -> str:
        place = f" in {self.image}" if self.image else ""
        return f"{self.program} of TensorRT-LLM {self.tensorrt_llm}{place}"


def find(image: str | None = None) -> Compiler:
    """The compiler here, or with `image` (or AUTO) the one in a container.

    Raises MissingToolError where there is none, with what would be one.
    """
    return _contained(image) if image else _installed()


def can_build() -> bool:
    """Whether engines can be built here without a container: a compiler and a GPU."""
    found = machine.tensorrt_llm()
    return found is not None and found.has_build and bool(machine.gpus())


def planned(image: str | None = None) -> tuple[Compiler, str | None]:
    """As `find`, for a dry run: without one here, the one of the last release, and what lacks."""
    try:
        return find(image), None
    except MissingToolError as error:
        name = image and _image(image)
        release = (name and _release(name)) or versions.release(versions.LAST_WITH_ENGINES)
        container = Container(engine="docker", image=name) if name else None
        return _released(COMPILER, release, container), str(error)


def _installed() -> Compiler:
    found, path = machine.tensorrt_llm(), shutil.which(COMPILER)
    if found is None or not found.has_build or path is None:
        version = found.version if found else None
        raise MissingToolError(
            "there is no engine compiler here",
            found=f"TensorRT-LLM {version} without {COMPILER}" if found else "no TensorRT-LLM",
            do=_instead(newer=found is not None),
        )
    if found.version is None:
        raise MissingToolError(
            "the installed TensorRT-LLM doesn't say its version", do="install it with pip"
        )
    _refuse_old(found.version, "the installed one")
    return Compiler(
        program=path, tensorrt_llm=found.version, tensorrt=found.tensorrt, cuda=found.cuda
    )


def _refuse_old(tensorrt_llm: str, where: str) -> None:
    if versions.numbers(tensorrt_llm)[:2] < OLDEST:
        raise LimitError(
            f"TensorRT-LLM {tensorrt_llm} is too old to build with",
            found=where,
            do=f"use {'.'.join(map(str, OLDEST))} or later: --container has"
            f" {versions.LAST_WITH_ENGINES}",
        )


def _instead(*, newer: bool) -> str:
    image = versions.image(versions.LAST_WITH_ENGINES)
    advice = [f"add --container (docker or podman runs {image})"]
    if newer:
        advice.append("use --target llmapi, which needs no engine")
    return ", or ".join([*advice, "use --target openvino, which needs no GPU"])


def _contained(wanted: str) -> Compiler:
    image = _image(wanted)
    release, engine = _release(image), container_engine()
    if engine is None or engine.problem:
        raise MissingToolError(
            "there is no container engine to build with",
            found=engine.problem if engine else "neither docker nor podman",
            do=(engine and engine.do) or "install docker and the NVIDIA Container Toolkit",
        )
    container = Container(engine=engine.path, image=image, rootless=is_rootless(engine.path))
    return _released(COMPILER, release, container) if release else _probed(container)


def _image(wanted: str) -> str:
    """A whole name, of a version ("1.2.1"), a Triton date ("26.07") or an image."""
    if wanted == AUTO:
        return versions.image(versions.LAST_WITH_ENGINES)
    return versions.full_name(wanted) if re.match(r"\d+\.\d+[^:/]*$", wanted) else wanted


def _release(image: str) -> versions.Release | None:
    """What an image holds by its name, None where that doesn't say. Raises LimitError if old."""
    try:
        found = versions.release_of_image(image)
    except LimitError:
        return None
    _refuse_old(found.tensorrt_llm, image)
    return found


def _released(program: str, release: versions.Release, container: Container | None) -> Compiler:
    return Compiler(
        program=program,
        tensorrt_llm=release.tensorrt_llm,
        tensorrt=release.tensorrt,
        cuda=release.cuda,
        container=container,
    )


def _probed(container: Container) -> Compiler:
    """What an image holds whose name doesn't say it."""
    found = probe(container.engine, container.image)
    if not found.get("compiler") or not found.get("version"):
        raise MissingToolError(
            f"the image {container.image} has no engine compiler",
            found=f"TensorRT-LLM {found.get('version')}",
            do=f"use {versions.image(versions.LAST_WITH_ENGINES)}",
        )
    _refuse_old(str(found["version"]), container.image)
    return Compiler(
        program=COMPILER,
        tensorrt_llm=str(found["version"]),
        tensorrt=found.get("tensorrt"),
        cuda=found.get("cuda"),
        container=container,
    )
