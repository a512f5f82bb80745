"""The engine compiler in a container: the docker or podman command around `trtllm-build`.

Folders are mounted under their own names, so that a command and its messages read the same inside
and outside. What is written belongs to the user who asked for it. Flags as in NVIDIA's guides for
the Triton and TensorRT-LLM images; podman takes GPUs by the names of the Container Device Interface
(NVIDIA Container Toolkit's documentation, "CDI").
"""

from __future__ import annotations

import csv
import io
import json
import os
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from builder.errors import MissingToolError
from builder.machine import probe as program
from builder.machine.ask import ask

SHM_SIZE = "2g"
LIMITS = ("memlock=-1", "stack=67108864")
_PROBE_S = 1800.0
"""Of a first run, which pulls some 15 GB."""


def _unique_name() -> str:
    return f"trtbuild-{uuid.uuid4().hex[:12]}"


@dataclass(frozen=True, kw_only=True)
class Container:
    """One run of an image. `engine` is the path of docker or podman.

    A `rootless` engine runs as the user, whom it takes for root inside.
    """

    engine: str
    image: str
    rootless: bool = False
    name: str = field(default_factory=_unique_name)

    def command(
        self, words: Sequence[str], *, reads: Iterable[Path] = (), writes: Iterable[Path] = ()
    ) -> list[str]:
        """The command line that runs `words` in it, with its folders and all GPUs."""
        return [
            *(self.engine, "run", "--rm", "--name", self.name),
            *self._gpus(),
            # mounted folders keep their labels under SELinux
            *("--security-opt", "label=disable"),
            f"--shm-size={SHM_SIZE}",
            *(f"--ulimit={limit}" for limit in LIMITS),
            *self._user(),
            *("--workdir", "/tmp"),
            *(f"--env={each}" for each in ("HOME=/tmp", "USER=trtbuild", "PYTHONUNBUFFERED=1")),
            *_kept_variables(),
            *(f"--mount={_mount(folder, read_only=True)}" for folder in reads),
            *(f"--mount={_mount(folder, read_only=False)}" for folder in writes),
            self.image,
            *words,
        ]

    @property
    def removal(self) -> list[str]:
        """The command that ends and removes it, whatever it is doing."""
        return [self.engine, "rm", "--force", self.name]

    @property
    def _is_podman(self) -> bool:
        return Path(self.engine).name.startswith("podman")

    def _gpus(self) -> list[str]:
        if self._is_podman:
            return ["--device", "nvidia.com/gpu=all"]
        return ["--gpus", "all"]

    def _user(self) -> list[str]:
        if self._is_podman and os.getuid():
            return ["--userns=keep-id"]
        if self.rootless:
            return []
        return ["--user", f"{os.getuid()}:{os.getgid()}"]


def _kept_variables() -> list[str]:
    names = ("CUDA_VISIBLE_DEVICES", "TLLM_LOG_LEVEL")
    return [word for name in names if name in os.environ for word in ("--env", name)]


def _mount(folder: Path, *, read_only: bool) -> str:
    """A bind mount in the engines' form, which is CSV: unlike `-v` it takes any path."""
    row = io.StringIO()
    fields = ["type=bind", f"src={folder}", f"dst={folder}"]
    csv.writer(row, lineterminator="").writerow([*fields, *(["readonly"] if read_only else [])])
    return row.getvalue()


def is_rootless(engine: str) -> bool:
    """Whether it is a docker that runs as an ordinary user."""
    return "name=rootless" in ask(engine, "info", "--format", "{{.SecurityOptions}}").out


def probe(engine: str, image: str) -> dict[str, Any]:
    """What is in an image: versions and whether the compiler is there, asked of it itself.

    Raises MissingToolError when it can't be run. No GPU is needed.
    """
    source = Path(program.__file__).read_text()
    answer = ask(engine, "run", "--rm", image, "python3", "-c", source, timeout_s=_PROBE_S)
    for line in reversed(answer.out.splitlines()):
        if answer.ok and line.startswith("{"):
            found: dict[str, Any] = json.loads(line)
            return found
    raise MissingToolError(
        f"the image {image} can't be asked what is in it",
        found=answer.complaint,
        do="give an image of TensorRT-LLM or Triton, or --container alone for the matching one",
    )
