"""The names of LLM-API settings: those that are known, were renamed, or came with a version."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from builder.errors import LimitError
from builder.targets.llmapi.setting import Object, Setting, names
from builder.targets.llmapi.settings import MODEL_YAML, REMOVED, RENAMED, VERSIONS
from builder.targets.llmapi.typed import FREE


def refuse_unknown(pairs: Iterable[str]) -> None:
    """Raise LimitError for a dotted name that no setting has, naming the one that was meant."""
    known = dict(names(MODEL_YAML))
    for name in pairs:
        if name in RENAMED:
            raise LimitError(f"the LLM API has no setting {name}", do=f"set {RENAMED[name]}")
        if reason := REMOVED.get(name.partition(".")[0]):
            raise LimitError(f"the LLM API has no setting {name} any more", do=reason)
        if name not in known and not _inside_map(name, known):
            near = _nearest(name, known)
            raise LimitError(
                f"the LLM API has no setting {name}",
                do=f"did you mean {' or '.join(near)}"
                if near
                else "TensorRT-LLM's LLM API reference names them",
            )


def _inside_map(name: str, known: Mapping[str, Setting]) -> bool:
    """Whether it is a key of a setting that takes any."""
    parts = name.split(".")
    outer = (".".join(parts[:end]) for end in range(1, len(parts)))
    return any(each in known and known[each].kind in FREE for each in outer)


def _nearest(name: str, known: Mapping[str, Setting]) -> list[str]:
    """The same last part elsewhere, else what is spelled alike."""
    leaf = name.rpartition(".")[2]
    elsewhere = [each for each in known if each.rpartition(".")[2] == leaf]
    return elsewhere[:3] or difflib.get_close_matches(name, known, n=3, cutoff=0.7)


def versions(values: Mapping[str, Any]) -> tuple[str, str | None]:
    """The first TensorRT-LLM (minor version) that has all of these settings, and the first not to.

    Raises LimitError where no version has them all.
    """
    used = list(_used(MODEL_YAML, values))
    since = max((setting.since for _, setting in used), key=VERSIONS.index, default=VERSIONS[0])
    until = min((s.until for _, s in used if s.until), key=VERSIONS.index, default=None)
    if until is not None and VERSIONS.index(until) <= VERSIONS.index(since):
        new = next(name for name, setting in used if setting.since == since)
        old = next(name for name, setting in used if setting.until == until)
        raise LimitError(
            "no TensorRT-LLM has all of these settings",
            found=f"{new} is new in {since}, {old} is gone in {until}",
            do=f"leave {old} out",
        )
    return since, until


def of_status(values: Mapping[str, Any], *wanted: str) -> list[str]:
    """The dotted names of the settings that upstream calls deprecated, prototype or beta."""
    return [name for name, setting in _used(MODEL_YAML, values) if setting.status in wanted]


def _used(of: Object, values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Setting]]:
    known = of.of(values.get(of.key, of.default) if of.key else None)
    for name, value in values.items():
        setting = known[name]
        yield prefix + name, setting
        if setting.of is not None and isinstance(value, Mapping):
            yield from _used(setting.of, value, f"{prefix}{name}.")
