"""Parameters: names that upstream's models know, values that the engine can honour."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from builder.errors import LimitError
from builder.limits import KV_FRACTION
from triton_repo.contract import EMBEDDING, MODELS, contract
from triton_repo.engine import Engine
from triton_repo.lint.finding import Finding, error, warning
from triton_repo.lint.repository import Model, Repository
from triton_repo.models.pbtxt import BEYOND
from triton_repo.settings import rules
from triton_repo.settings.options import SETTINGS, RepositoryOptions
from triton_repo.settings.table import Kind

_YES = ("t", "y", "yes")
"""What upstream's models in Python take for true besides."""


def known(repository: Repository) -> Iterator[Finding]:
    """Names that a model has no use for, which Triton lets pass."""
    for model in repository.models.values():
        if model.role not in (*MODELS, EMBEDDING):
            continue
        names = {*contract(model.role).parameters, *BEYOND.get(model.role, ())}
        for name in model.config.parameters:
            if name not in names:
                near = get_close_matches(name, names, 1)
                do = f"is {near[0]} meant?" if near else "take it out"
                yield warning(model.file, f"parameters.{name}", "a name that isn't known", do)


def values(repository: Repository) -> Iterator[Finding]:
    """Values that upstream would ignore or refuse, and those that don't fit the engine."""
    for model in repository.models.values():
        found: dict[str, Any] = {}
        for name, each in SETTINGS.items():
            word = model.values.get(each.parameter) if each.parameter else None
            if word is None or model.role not in MODELS:
                continue
            if each.kind is Kind.FLAG and word.lower() in _YES and _upstreams(repository, model):
                continue
            try:
                found[name] = each.read(word)
            except LimitError as why:
                yield error(model.file, f"parameters.{each.parameter}", word, why.what)
        engine = repository.engine(model) if model.role == "tensorrt_llm" else None
        if engine:
            yield from _engine(model, found, engine)


def _upstreams(repository: Repository, model: Model) -> bool:
    return repository.manifest is None and model.config.backend == "python"


def _engine(model: Model, found: Mapping[str, Any], engine: Engine) -> Iterator[Finding]:
    """The rules that trtbuild writes repositories by, on what this one says."""
    count = sum(group.count for group in model.config.instance_group) or 1
    asked = RepositoryOptions(**{**found, "tensorrt_llm_instance_count": count})
    unset: dict[str, Any] = {
        "enable_kv_cache_reuse": engine.reuses_blocks,
        "guided_decoding_backend": "none",
        "max_beam_width": 1,
    }
    chosen = RepositoryOptions(
        **{**unset, **found, "tensorrt_llm_instance_count": count},
    )
    for report, refused in (
        (error, rules.broken(asked, chosen, engine)),
        (warning, rules.too_wide(asked, engine)),
    ):
        for broken in refused:
            do = f"{broken.what}; {broken.do}" if broken.do else broken.what
            yield report(model.file, f"parameters.{_subject(broken)}", broken.found or "", do)


def _subject(broken: LimitError) -> str:
    """The parameter that a rule is about: the first name in what it says."""
    words = broken.what.replace(",", " ").split()
    names = {name: each.parameter or name for name, each in SETTINGS.items()}
    return next((names[word] for word in words if word in names), "gpt_model_path")


def memory(repository: Repository) -> Iterator[Finding]:
    """Engines that share a GPU, and together want more of its memory than there is."""
    wanted: dict[int, list[tuple[Model, float]]] = {}
    for model in repository.of("tensorrt_llm"):
        engine = repository.engine(model)
        if engine is None or "max_tokens_in_paged_kv_cache" in model.values:
            continue
        part = _number(model.values.get("kv_cache_free_gpu_mem_fraction"))
        for device in _devices(model, engine):
            wanted.setdefault(device, []).append((model, part))
    for device, here in sorted(wanted.items()):
        total = sum(part for _, part in here)
        if len(here) > 1 and total > 1:
            parts = " + ".join(f"{part:g} ({model.name})" for model, part in here)
            do = "let those of one GPU have a sum of at most 1, or give engines GPUs of their own"
            field = f"parameters.kv_cache_free_gpu_mem_fraction on GPU {device}"
            yield error(here[-1][0].file, field, parts, do)


def _number(word: str | None) -> float:
    try:
        return float(word) if word else KV_FRACTION
    except ValueError:
        return KV_FRACTION


def _devices(model: Model, engine: Engine) -> set[int]:
    word = model.values.get("gpu_device_ids")
    try:
        groups = SETTINGS["gpu_device_ids"].read(word) if word else None
    except LimitError:
        groups = None
    if groups is None:
        return set(range(engine.world_size))
    return {device for group in groups for device in group}
