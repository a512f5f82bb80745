"""A new version of an engine in the place of the one that is served, without losing a request.

Triton loads the new versions while the old ones serve, has new requests go to them from one moment
to the next, and unloads the old ones when their last request has its answer. Both engines are in
memory for that while.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder import digest
from builder.errors import ArtifactError, LaunchError, LimitError, TrtbuildError
from builder.limits import LIMITS
from builder.progress import Progress, silent
from builder.source import huggingface
from triton_repo.control.client import Control
from triton_repo.control.drain import WHY, drain, listed
from triton_repo.control.succession import Succession, succession
from triton_repo.engine import anyones
from triton_repo.planned import CONFIG
from triton_repo.served import ServedEngine, ServedRepository, describe

_TEXT_FILES = (*huggingface.TOKENIZER_FILES, huggingface.GENERATION_CONFIG)
"""What a proxy in front has read: the same before and after."""


@dataclass(frozen=True, kw_only=True)
class Swapped:
    """What came of it. `drained` is whether the old version had answered its last request."""

    name: str
    engine: Path
    version: int
    seconds: float
    drained: bool


def swap(
    repository: Path,
    engine: Path,
    control: Control,
    *,
    name: str | None = None,
    drain_s: float = 600.0,
    say: Callable[[str], None] = lambda _: None,
    progress: Progress = silent,
) -> Swapped:
    """Serve the engine folder `engine` in the place of the one called `name` (else the first).

    Requests under way get `drain_s` before the old engine's files go, which stay where it is still
    in memory then; the requests themselves are not ended. Adapters, draft and options stay what
    they are. Raises ArtifactError and LimitError where the new engine doesn't fit the old one's
    place, LaunchError where it doesn't load or Triton doesn't allow it; then the old one serves as
    before. A swap that is killed leaves a repository that loads; the next one tidies up.
    """
    served = describe(repository)
    old = _chosen(served, name)
    _require_control(control)
    began = time.monotonic()
    with succession(served, old, engine, progress=progress) as new:
        _require_fit(old, new)
        if old.target != "openvino":
            say("both engines are in GPU memory until the old one's last request is answered")
        if old.target == "tensorrt-llm":
            say(
                "the new engine loads into what the old one's KV cache leaves, by default a tenth"
                " of what was free: set max_tokens_in_paged_kv_cache, or a"
                " kv_cache_free_gpu_mem_fraction of at most 0.45, when writing the repository"
            )
        try:
            new.install()
            for model in new.models:
                say(f"loading {model}, version {new.version}")
                control.load(model)
        except BaseException as error:
            _roll_back(new, control, error)
            raise
        new.confirm()
        say("the new version serves; the old one finishes its requests")
        left = drain(
            control,
            lambda each: each.name in new.models and each.version != new.version,
            limit_s=drain_s,
            say=say,
        )
        new.clear(keep={each.version for each in left})
        if left:
            say(f"still in memory: {listed(left)}; {WHY}. A later swap removes the files")
    return Swapped(
        name=old.name,
        engine=engine,
        version=new.version,
        seconds=time.monotonic() - began,
        drained=not left,
    )


def _chosen(served: ServedRepository, name: str | None) -> ServedEngine:
    found = [engine for engine in served.engines if name in (None, engine.name)]
    if not found:
        names = ", ".join(engine.name for engine in served.engines)
        raise LaunchError(f"{served.path} serves no {name}", found=names)
    return found[0]


def _require_control(control: Control) -> None:
    """Refuse what can't be swapped, before anything is written."""
    if not control.access.model_control:
        raise LaunchError(
            "this Triton's models can't be replaced while it runs",
            found="several ranks under mpirun, which load their engine once",
            do="start a second server with the new engine, then stop this one",
        )


def _require_fit(old: ServedEngine, new: Succession) -> None:
    """Refuse an engine whose users would notice more than other weights."""
    found = next(each for each in describe(new.folder).engines if each.name == old.name)
    do = "write a new repository for it and start that"
    if found.models.keys() != old.models.keys():
        raise ArtifactError(
            "this trtbuild writes other models than the repository has",
            found=", ".join(sorted(set(found.models) ^ set(old.models))),
            do=do,
        )
    if found.target != old.target or found.world_size != old.world_size:
        raise LimitError(
            "the new engine is for another target or another number of ranks",
            found=f"{found.target}, {found.world_size} and not {old.target}, {old.world_size}",
            do=do,
        )
    if old.adapters and old.target != "llmapi" and _tp_size(found) != _tp_size(old):
        raise LimitError(
            "the repository's adapters are cut for another number of tensor-parallel ranks",
            found=f"{_tp_size(found)} and not {_tp_size(old)}",
            do=do,
        )
    for limit in LIMITS:
        if getattr(found, limit) < getattr(old, limit):
            raise LimitError(
                f"{limit} of the new engine is lower: requests that are let through would fail",
                found=f"{getattr(found, limit)} after {getattr(old, limit)}",
                do=f"build it with at least the old {limit}, or {do}",
            )
    if found.embedding != old.embedding:
        raise LimitError("the new engine gives other embeddings", found=str(found.embedding), do=do)
    for name in _TEXT_FILES:
        if _digest(found.tokenizer_dir / name) != _digest(old.tokenizer_dir / name):
            raise ArtifactError(
                "the new engine has another tokenizer, chat template or end of sequence",
                found=f"another {name}",
                do=do,
            )
    for model in new.models:
        before, after = _tensors(new.repository / model), _tensors(new.folder / model)
        if before != after:
            raise ArtifactError(f"{model} would have other tensors than before", do=do)


def _tp_size(engine: ServedEngine) -> int:
    return anyones(engine.engine_dir).tp_size


def _digest(path: Path) -> str | None:
    return digest.of(path) if path.is_file() else None


def _tensors(model: Path) -> tuple[Any, ...]:
    from triton_repo.models.pbtxt import from_text

    config = from_text((model / CONFIG).read_text())
    policy = config.model_transaction_policy.decoupled
    return config.backend, policy, list(config.input), list(config.output)


def _roll_back(new: Succession, control: Control, error: BaseException) -> None:
    """Have all as it was. A load of what is loaded already changes nothing."""
    new.withdraw()
    for model in new.models:
        try:
            control.load(model)
        except TrtbuildError as worse:
            raise LaunchError(
                "the new engine doesn't load, nor does the old one again",
                found=str(worse),
                do="start Triton again: the repository is the old one",
            ) from error
