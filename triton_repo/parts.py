"""Plans a repository: each engine's models, names and settings, before anything is written."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from builder import manifest as manifests
from builder.errors import ArtifactError, LimitError
from builder.limits import KV_FRACTION
from triton_repo import engine as engines
from triton_repo.engine import Engine
from triton_repo.names import Names
from triton_repo.planned import Planned, PlannedLlmApi
from triton_repo.planned_encoder import PlannedEncoder, runs_encoder
from triton_repo.settings import rules
from triton_repo.settings.options import SETTINGS, RepositoryOptions

DRAFT = "_draft"
_PREFIX = re.compile(r"[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, kw_only=True)
class Part:
    """An engine that a repository is asked to serve.

    `name` is the served model's, by default the engine's. `adapters` are LoRA adapters in Hugging
    Face's form by name; requests call them by ids that count from 1. `draft` is the engine that
    drafts for it.
    """

    engine: Path
    name: str | None = None
    options: RepositoryOptions = field(default_factory=RepositoryOptions)
    adapters: Mapping[str, Path] = field(default_factory=dict)
    draft: Path | None = None
    draft_options: RepositoryOptions = field(default_factory=RepositoryOptions)


def name_of(engine: Path) -> str:
    """What an engine is served as where nobody says."""
    return str(manifests.read(engine).about.get("name") or engine.resolve().name)


AnyPlanned = Planned | PlannedLlmApi | PlannedEncoder


def plan(parts: Sequence[Part], version: int) -> Sequence[AnyPlanned]:
    """Each engine and each draft in turn, drafts after what they draft for.

    Raises ArtifactError for a folder that isn't a whole engine, LimitError for names that clash,
    and for options that an engine can't honour.
    """
    targets = sorted({str(manifests.read(part.engine).options.get("target")) for part in parts})
    if "llmapi" in targets:
        if len(targets) > 1:
            raise _two_targets(targets)
        return _llmapi(parts, version)
    read = [(part, engines.read(part.engine)) for part in parts]
    targets = sorted({engine.target for _, engine in read})
    if len(targets) > 1:
        raise _two_targets(targets)
    prefixes = _prefixes([part.name or engine.name for part, engine in read])
    found: list[Planned | PlannedEncoder] = []
    for (part, engine), prefix in zip(read, prefixes, strict=True):
        if runs_encoder(engine):
            found.append(_encoder(part, engine, prefix, version))
        else:
            found += _part(part, engine, prefix, version)
    _require_names(found)
    settled = iter(_settled([each for each in found if isinstance(each, Planned)]))
    return [next(settled) if isinstance(each, Planned) else each for each in found]


def _encoder(part: Part, engine: Engine, prefix: str, version: int) -> PlannedEncoder:
    given = [*(["--lora"] if part.adapters else []), *(["--draft"] if part.draft else [])]
    if given:
        raise LimitError(f"{part.engine} is an encoder, which writes no text", found=given[0])
    planned = PlannedEncoder(
        engine=engine,
        name=part.name or engine.name,
        names=Names(prefix=prefix, version=version),
        options=part.options,
    )
    planned.require()
    return planned


def _require_names(found: Sequence[Planned | PlannedEncoder]) -> None:
    """A draft is called after its engine, as another engine may be too."""
    names = [each.name for each in found]
    for name in names:
        if names.count(name) > 1:
            raise LimitError(
                "an engine has the name of another's draft", found=name, do="give it another --name"
            )


def _part(part: Part, engine: Engine, prefix: str, version: int) -> list[Planned]:
    name, drafts = part.name or engine.name, Names(prefix=prefix, suffix=DRAFT, version=version)
    served = Planned(
        engine=engine,
        name=name,
        names=Names(
            prefix=prefix, version=version, draft=drafts.tensorrt_llm if part.draft else None
        ),
        asked=part.options,
        options=part.options,
        adapters=part.adapters,
    )
    if part.draft is None:
        return [served]
    draft = engines.read(part.draft)
    if runs_encoder(draft):
        raise LimitError(f"{part.draft} is an encoder, which can't draft", found=draft.architecture)
    _require_pair(engine, draft)
    options = part.draft_options
    beside = replace(
        served, engine=draft, name=f"{name}{DRAFT}", names=drafts, asked=options, options=options
    )
    return [served, replace(beside, adapters={}, models=("tensorrt_llm",))]


def _llmapi(parts: Sequence[Part], version: int) -> list[PlannedLlmApi]:
    from triton_repo.llmapi.engine import read

    for part in parts:
        _refuse_settings(part)
    found = [(part, read(part.engine)) for part in parts]
    prefixes = _prefixes([part.name or engine.name for part, engine in found])
    return [
        PlannedLlmApi(
            engine=engine,
            name=part.name or engine.name,
            names=Names(prefix=prefix, version=version),
        )
        for (part, engine), prefix in zip(found, prefixes, strict=True)
    ]


def _settled(found: list[Planned]) -> list[Planned]:
    """With what the options leave to the engine, and to the others that share its GPUs."""
    on = [_devices(each) for each in found]
    sharing = [sum(bool(own & other) for other in on) for own in on]
    settled = [
        replace(
            each,
            options=rules.settled(
                each.options, each.engine, each.names, adapters=bool(each.adapters), sharing=count
            ),
        )
        for each, count in zip(found, sharing, strict=True)
    ]
    _require_memory(settled, on)
    return settled


def _devices(each: Planned) -> set[int]:
    groups = each.options.gpu_device_ids
    if groups is None:
        return set(range(each.engine.world_size))
    return {device for group in groups for device in group}


def _require_memory(found: Sequence[Planned], on: Sequence[set[int]]) -> None:
    for device in sorted(set[int]().union(*on)):
        here = [each.options for each, own in zip(found, on, strict=True) if device in own]
        parts = [
            each.kv_cache_free_gpu_mem_fraction or KV_FRACTION
            for each in here
            if each.max_tokens_in_paged_kv_cache is None
        ]
        if len(here) > 1 and sum(parts) > 1:
            on_cpu = found[0].engine.target == "openvino"
            where = "of this machine" if on_cpu else f"on GPU {device}"
            raise LimitError(
                f"the engines {where} want more of its free memory than there is",
                found=f"kv_cache_free_gpu_mem_fraction {' + '.join(f'{p:g}' for p in parts)}",
                do="let the fractions have a sum of at most 1, or set"
                " max_tokens_in_paged_kv_cache, or give engines GPUs of their own",
            )


def _prefixes(called: Sequence[str]) -> list[str]:
    """What the models' names begin with, for engines of these names."""
    if len(called) == 1:
        return [""]
    for name in called:
        if called.count(name) > 1:
            raise LimitError(
                "engines of one repository need different names",
                found=f"{name} twice",
                do="give a --name each",
            )
        if not _PREFIX.fullmatch(name):
            raise LimitError(
                "names of several engines begin their models' names: letters, digits, _ . -",
                found=name,
                do="give a --name each",
            )
    return [f"{name}_" for name in called]


def _two_targets(targets: Sequence[str]) -> LimitError:
    return LimitError(
        "engines of one repository need one target: its backend is one program",
        found=" and ".join(targets),
        do="write a repository for each target",
    )


def _require_pair(engine: Engine, draft: Engine) -> None:
    """An engine and what drafts for it. Raises LimitError where the two don't fit."""
    if draft.target != engine.target or draft.vocab_size != engine.vocab_size:
        raise LimitError(
            f"{draft.path} can't draft for {engine.path}: target and vocabulary must be the same",
            found=f"{draft.target}, {draft.vocab_size} tokens"
            f" and {engine.target}, {engine.vocab_size} tokens",
        )
    if engine.speculative_mode != "draft_tokens_external" or not engine.max_draft_len:
        raise LimitError(
            f"{engine.path} can't verify drafts",
            found=f"speculative_decoding_mode {engine.speculative_mode},"
            f" max_draft_len {engine.max_draft_len}",
            do="build it with --speculative draft_tokens_external and --max-draft-len",
        )


def _changed(options: RepositoryOptions) -> list[str]:
    """The settings that were given."""
    return [name for name, each in SETTINGS.items() if getattr(options, name) != each.default]


def _refuse_settings(part: Part) -> None:
    """Refuse what an engine of the LLM API has no use for. Raises ArtifactError, naming it."""
    given = [*_changed(part.options), *(["--lora"] if part.adapters else [])]
    given += ["--draft"] if part.draft else []
    if given:
        raise ArtifactError(
            f"{part.engine} is for the LLM API, whose settings are in its model.yaml",
            found=", ".join(given),
            do="build it with them: trtbuild build --target llmapi --set NAME=VALUE",
        )
