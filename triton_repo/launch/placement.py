"""Which GPUs a repository's engines go to, and in which of TensorRT-LLM's ways they start.

Sources: upstream's `launch_triton_server.py`, `model_state.cc` (the two lists of ids) and
`model_instance_state.cc` (an instance takes its turn in them).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.errors import ArtifactError, LaunchError
from triton_repo.launch.binary import TENSORRT_LLM

CONFIG = "config.pbtxt"
_AGAIN = "write the repository again with trtbuild repo"

Groups = tuple[tuple[int, ...], ...]
"""Ids for each instance of a model, `0,1;2,3` in its config."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """A model that runs an engine of `world_size` ranks, `instances` times.

    Without `gpu_device_ids` an instance takes the machine's first GPUs. `participant_ids` are the
    MPI ranks of an instance, where these are not started by the orchestrator.
    """

    model: str
    world_size: int = 1
    instances: int = 1
    gpu_device_ids: Groups = ()
    participant_ids: Groups = ()

    @property
    def gpus(self) -> Groups:
        """The GPUs of each instance."""
        chosen = self.gpu_device_ids or (tuple(range(self.world_size)),)
        return tuple(chosen[i % len(chosen)] for i in range(self.instances))


@dataclass(frozen=True, kw_only=True)
class Form:
    """How tritonserver starts: `ranks` of it under mpirun, and whether the first only orders."""

    ranks: int = 1
    orchestrator: bool = False
    engine_models: tuple[str, ...] = ()


def read(repository: Path) -> tuple[Placement, ...]:
    """The models of a repository that TensorRT-LLM's backend runs, by name.

    Raises ArtifactError where a config or its engine can't be read, or has ids that aren't any.
    """
    return tuple(
        Placement(
            model=config.name,
            world_size=_world_size(repository, config),
            instances=_instances(config),
            gpu_device_ids=_ids(config, "gpu_device_ids"),
            participant_ids=_ids(config, "participant_ids"),
        )
        for config in _configs(repository)
        if config.backend == TENSORRT_LLM
    )


def python_instances(repository: Path, target: str) -> int:
    """How many processes of Python models it starts, for engines of `target`.

    Raises ArtifactError as `read` does.
    """
    backends = {"python", TENSORRT_LLM} if target == "openvino" else {"python"}
    return sum(_instances(config) for config in _configs(repository) if config.backend in backends)


def form_of(placements: Sequence[Placement]) -> Form:
    """The least that runs them: one server, one for each rank of one engine, or an orchestrator.

    Raises LaunchError where some have MPI ranks of their own and others don't.
    """
    models = tuple(placement.model for placement in placements)
    given = [placement for placement in placements if placement.participant_ids]
    if given:
        without = [p.model for p in placements if not p.participant_ids]
        if without:
            raise LaunchError(
                "either all engines have participant_ids or none",
                found=f"none for {', '.join(without)}",
                do="set them in its config.pbtxt: trtbuild repo --set participant_ids=…",
            )
        last = max(rank for p in given for group in p.participant_ids for rank in group)
        return Form(ranks=last + 1, orchestrator=True, engine_models=models)
    if all(placement.world_size == 1 for placement in placements):
        return Form(engine_models=models)
    if len(placements) == 1 and placements[0].instances == 1:
        return Form(ranks=placements[0].world_size, engine_models=models)
    return Form(orchestrator=True, engine_models=models)


def check(
    placements: Sequence[Placement], gpus: int, *, share: bool, say: Callable[[str], None]
) -> None:
    """Refuse what `gpus` GPUs can't run. Two engines on a GPU only where they may `share` it.

    Raises LaunchError. `say` hears what is allowed and may go wrong.
    """
    taken: dict[int, str] = {}
    for placement in placements:
        _check_shape(placement)
        for number, group in enumerate(placement.gpus):
            if missing := [gpu for gpu in group if not 0 <= gpu < gpus]:
                raise LaunchError(
                    f"{placement.model} needs GPU {missing[0]}",
                    found=f"{gpus} GPUs here, numbered from 0",
                    do="choose others with gpu_device_ids, or show this process more"
                    " (CUDA_VISIBLE_DEVICES, docker run --gpus)",
                )
            name = placement.model + (f" (instance {number})" if placement.instances > 1 else "")
            _take(group, name, taken, share=share, say=say)
    _check_participants(placements)


def _take(
    group: Sequence[int],
    name: str,
    taken: dict[int, str],
    *,
    share: bool,
    say: Callable[[str], None],
) -> None:
    for gpu in group:
        if gpu not in taken:
            taken[gpu] = name
        elif share:
            say(
                f"{name} shares GPU {gpu} with {taken[gpu]}: each takes its"
                " kv_cache_free_gpu_mem_fraction of what is free when it loads"
            )
        else:
            raise LaunchError(
                f"{name} and {taken[gpu]} would run on the same GPU {gpu}",
                found="no other gpu_device_ids for one of them",
                do="set them (trtbuild repo --set gpu_device_ids=2,3), or allow it: --share-gpus",
            )


def _check_shape(placement: Placement) -> None:
    """Each instance has as many ids as ranks, none twice; upstream counts on one set for each."""
    for name, groups in (
        ("gpu_device_ids", placement.gpu_device_ids),
        ("participant_ids", placement.participant_ids),
    ):
        shown = ";".join(",".join(map(str, group)) for group in groups)
        if groups and len(groups) != placement.instances:
            raise LaunchError(
                f"{placement.model} needs a set of {name} for each of its instances",
                found=f"{name} {shown} for {placement.instances}",
                do="part the sets with semicolons: 0,1;2,3",
            )
        if any(len(set(group)) != placement.world_size for group in groups):
            raise LaunchError(
                f"{placement.model} has {placement.world_size} ranks and needs as many {name}",
                found=shown,
                do="write its repository again with --set",
            )


def _check_participants(placements: Sequence[Placement]) -> None:
    ranks = [rank for p in placements for group in p.participant_ids for rank in group]
    if ranks and (len(set(ranks)) != len(ranks) or 0 in ranks):
        raise LaunchError(
            "participant_ids are MPI ranks of one instance each; rank 0 is the orchestrator's",
            found=", ".join(map(str, ranks)),
            do="number them from 1",
        )


def _configs(repository: Path) -> list[Any]:
    from triton_repo.models.pbtxt import from_text

    configs = []
    for path in sorted(repository.glob(f"*/{CONFIG}")):
        try:
            configs.append(from_text(path.read_text()))
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{path} can't be read", found=str(error), do=_AGAIN) from error
    return configs


def _world_size(repository: Path, config: Any) -> int:
    """The ranks of a model's engine. Relative paths start at the repository: Triton runs there."""
    path = repository / config.parameters["gpt_model_path"].string_value / "config.json"
    try:
        mapping = json.loads(path.read_text())["pretrained_config"].get("mapping") or {}
        return int(mapping.get("world_size") or 1)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"{config.name} has no engine that can be read", found=repr(error), do=_AGAIN
        ) from error


def _instances(config: Any) -> int:
    return max(1, sum(group.count or 1 for group in config.instance_group))


def _ids(config: Any, name: str) -> Groups:
    """The ids that a parameter holds, as upstream splits it. A placeholder is none."""
    text = config.parameters[name].string_value if name in config.parameters else ""
    if not text or text.startswith("${"):
        return ()
    try:
        return tuple(tuple(int(i) for i in group.split(",")) for group in text.split(";") if group)
    except ValueError as error:
        raise ArtifactError(
            f"{config.name}: {name} must be numbers like 0,1;2,3", found=repr(text)
        ) from error
