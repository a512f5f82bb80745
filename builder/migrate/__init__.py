"""An engine's limits and features as settings of the LLM API, and what has no equivalent there.

TensorRT-LLM after 1.2 has no engines: it loads the model itself. What an engine was built for
is in its `config.json`, whoever built it; every field of it is accounted for.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from builder.manifest import Manifest
from builder.migrate import quantization
from builder.migrate.engine import PLUGINS, Engine, open_engine, refuse_another
from builder.migrate.fields import OF_OLDER_PLUGINS, OF_THE_MODEL, ROWS, UNKNOWN
from builder.migrate.parameters import PARAMETERS
from builder.migrate.quantization import KV_QUANT_ALGO, QUANT_ALGO
from builder.migrate.row import Fate, Outcome, Row
from builder.targets import llmapi
from builder.targets.llmapi import LlmApiOptions, Resolved
from builder.targets.llmapi.files import refuse_overlap
from builder.targets.llmapi.model import HfModel, open_model
from builder.targets.llmapi.resolved import asked


@dataclass(frozen=True, kw_only=True)
class Migration:
    """The settings that an engine becomes, and what became of each of its fields."""

    engine: Path
    outcomes: tuple[Outcome, ...]
    options: LlmApiOptions
    resolved: Resolved
    name: str

    def with_fate(self, fate: Fate) -> tuple[Outcome, ...]:
        """The fields that it befell."""
        return tuple(each for each in self.outcomes if each.fate is fate)


def plan(
    engine: Path,
    model: Path,
    *,
    parameters: Mapping[str, str] | None = None,
    settings: Mapping[str, str] | None = None,
    copy: bool = False,
    name: str | None = None,
) -> Migration:
    """What the engine folder becomes with the Hugging Face folder `model`; nothing is written.

    `parameters` are those of its Triton model, `settings` raw `--set` pairs that beat what the
    engine says. Raises ArtifactError for a folder that isn't an engine, or not one of this model,
    and as `llmapi.resolve`.
    """
    found, source = open_engine(engine), open_model(model)
    refuse_another(found, source)
    chosen = dict(settings or {})
    outcomes = [
        *_outcomes(found, source, chosen),
        *(_parameter(name, value, chosen) for name, value in (parameters or {}).items()),
    ]
    mapped = {
        each.setting: _typed(each.to)
        for each in outcomes
        if each.fate is Fate.KEPT and each.setting and _over(each.setting, chosen) is None
    }
    options = LlmApiOptions(copy=copy, settings={**mapped, **chosen})
    return Migration(
        engine=engine,
        outcomes=tuple(outcomes),
        options=options,
        resolved=llmapi.resolve(model, options),
        name=name or found.name or engine.resolve().name,
    )


def migrate(migration: Migration, out: Path) -> Manifest:
    """Write the folder that `plan` found. Raises as `llmapi.build`; the engine stays as it is."""
    refuse_overlap(out, (migration.engine,))
    model = migration.resolved.model.path
    return llmapi.build(model, out, options=migration.options, name=migration.name)


def _outcomes(engine: Engine, model: HfModel, chosen: Mapping[str, str]) -> Iterator[Outcome]:
    drafts = asked(chosen).set("speculative_config.decoding_type")
    for name, value in engine.fields.items():
        if name == QUANT_ALGO:
            yield quantization.weights(value, model)
        elif name == KV_QUANT_ALGO:
            yield quantization.cache(value, model)
        elif name.startswith("build_config.lora_config.") and not engine.lora:
            yield Outcome(field=name, value=value, fate=Fate.UNUSED)
        elif engine.target == "openvino" and name.endswith("kv_cache_config.max_tokens"):
            text = "it was the CPU's memory"
            yield Outcome(field=name, value=value, fate=Fate.UNNEEDED, text=text)
        elif engine.target == "openvino" and name in _OF_EVERY_CPU_ENGINE:
            yield Outcome(field=name, value=value, fate=Fate.UNUSED)
        else:
            outcome = _outcome(name, value, chosen)
            if drafts and name in _DRAFTING and outcome.fate is Fate.LOST:
                outcome = _drafted(outcome, drafts, chosen)
            yield _adapted(outcome, engine, model)


def _row(rows: Iterable[Row], name: str, value: Any) -> Row | None:
    """The first row for the field with this value."""
    return next((row for row in rows if row.name == name and row.applies(value)), None)


def _outcome(name: str, value: Any, chosen: Mapping[str, str]) -> Outcome:
    if row := _row(ROWS, name, value):
        return _of(row, name, value, chosen)
    if name.startswith("pretrained_config."):
        return Outcome(field=name, value=value, fate=Fate.UNNEEDED, text=OF_THE_MODEL)
    if name.startswith(PLUGINS):
        return Outcome(field=name, value=value, fate=Fate.UNNEEDED, text=OF_OLDER_PLUGINS)
    return Outcome(field=name, value=value, fate=Fate.LOST, text=UNKNOWN)


def _parameter(name: str, value: str, chosen: Mapping[str, str]) -> Outcome:
    full = f"parameters.{name}"
    if row := _row(PARAMETERS, name, value):
        return _of(row, full, value, chosen)
    return Outcome(field=full, value=value, fate=Fate.LOST, text=UNKNOWN)


def _of(row: Row, name: str, value: Any, chosen: Mapping[str, str]) -> Outcome:
    if any(value == each and type(value) is type(each) for each in row.neutral):
        return Outcome(field=name, value=value, fate=Fate.UNUSED)
    if row.fate is Fate.KEPT:
        over = _over(row.setting or "", chosen)
        text = row.text if over is None else f"--set has {over}"
        to = row.words.get(value, value) if isinstance(value, Hashable) else value
        return Outcome(
            field=name, value=value, fate=row.fate, text=text, setting=row.setting, to=to
        )
    return Outcome(field=name, value=value, fate=row.fate, text=row.text.format(value=value))


def _over(setting: str, chosen: Mapping[str, str]) -> str | None:
    """What the user set in place of a setting, itself or the object that it is in."""
    whole = (name for name in chosen if setting == name or setting.startswith(f"{name}."))
    return next((chosen[name] for name in whole), None)


_DRAFTING = ("build_config.speculative_decoding_mode", "build_config.max_draft_len")
_OF_EVERY_CPU_ENGINE = (
    *_DRAFTING,
    *("build_config.gather_context_logits", "build_config.gather_generation_logits"),
)
"""What the openvino target's engines do without being asked."""


def _drafted(lost: Outcome, drafts: str, chosen: Mapping[str, str]) -> Outcome:
    """Speculative decoding that the user has chosen anew; the length of a draft is kept."""
    if lost.field.endswith("max_draft_len"):
        setting = "speculative_config.max_draft_len"
        over = _over(setting, chosen)
        text = "" if over is None else f"--set has {over}"
        return replace(lost, fate=Fate.KEPT, setting=setting, to=lost.value, text=text)
    return replace(lost, fate=Fate.UNNEEDED, text=f"--set has {drafts} in its place")


def _adapted(outcome: Outcome, engine: Engine, model: HfModel) -> Outcome:
    """A kept limit as the LLM API can hold it."""
    if outcome.fate is not Fate.KEPT:
        return outcome
    to, text = outcome.to, outcome.text
    if outcome.setting == "dtype" and to == model.dtype != "float32":
        return replace(outcome, fate=Fate.UNNEEDED, text=OF_THE_MODEL, setting=None, to=None)
    tokens = engine.fields.get("build_config.max_num_tokens")
    most, why = {
        "max_seq_len": (model.max_seq_len, "as many as the model was made for"),
        "max_batch_size": (tokens, "as many as max_num_tokens: a request takes a token a step"),
    }.get(outcome.setting or "", (None, ""))
    if type(to) is int and type(most) is int and to > most > 0:
        to, text = most, why
    if outcome.setting == "lora_config.lora_dir" and isinstance(to, list):
        to = [str((engine.path / str(folder)).resolve()) for folder in to]
    return replace(outcome, to=to, text=text, fate=Fate.UNUSED if to is None else Fate.KEPT)


def _typed(value: Any) -> str:
    """A value as `--set` takes it."""
    return value if isinstance(value, str) else json.dumps(value)
