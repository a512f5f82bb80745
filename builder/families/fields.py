"""How a model's hyperparameters are read from Hugging Face's config.json: the grammar of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from builder.errors import ArtifactError

REQUIRED = object()
"""The default of a field that has none: a config without it can't be used."""


@dataclass(frozen=True)
class Field:
    """One hyperparameter: where config.json has it and what the checkpoint calls it.

    `keys` are tried in order, "a.b" is a nested one, and null counts as absent. An absent field
    is `times` (a number, or another attribute) the attribute `same_as`, else `default`. `when`
    maps other attributes to what they must be for this entry to count (True and False stand for
    any value that is or isn't empty); the first entry of an attribute that counts is taken.
    `translate` replaces values by the checkpoint's words for them; `only` are those that can be
    carried over, and others are refused. Numbers must be positive, or with `zero` not negative.
    With `null`, null is a value and not an absence.
    """

    attribute: str
    keys: tuple[str, ...] = ()
    kind: type = int
    default: object = REQUIRED
    same_as: str | None = None
    times: int | str = 1
    when: Mapping[str, Any] = field(default_factory=dict)
    translate: Mapping[Any, Any] = field(default_factory=dict)
    only: tuple[Any, ...] = ()
    zero: bool = False
    null: bool = False


@dataclass(frozen=True)
class Refused:
    """A setting that TensorRT-LLM's model class can't express.

    `key` of config.json may be absent or one of `only`; anything else is refused, with `reason`.
    """

    key: str
    only: tuple[Any, ...]
    reason: str


@dataclass(frozen=True)
class Unfit:
    """Attributes that TensorRT-LLM's model class can't have together.

    They are refused, with `reason`, where `found` is true of a model's attributes.
    """

    attributes: tuple[str, ...]
    found: Callable[[Mapping[str, Any]], bool]
    reason: str


def lookup(fields: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path, None where there is none."""
    value: Any = fields
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def whole_number(config: Mapping[str, Any], path: str) -> int:
    """The number at a dotted path of a checkpoint's config. Raises ArtifactError without one."""
    value = lookup(config, path)
    if type(value) is not int:
        raise ArtifactError(
            f"the checkpoint's config must have a whole number {path}",
            found=repr(value),
            do="make the checkpoint with trtbuild convert",
        )
    return value


def holds(when: Mapping[str, Any], fields: Mapping[str, Any]) -> bool:
    """Whether every condition is met; True and False stand for any value that is or isn't empty."""
    return all(
        bool(lookup(fields, path)) is wanted
        if isinstance(wanted, bool)
        else lookup(fields, path) == wanted
        for path, wanted in when.items()
    )
