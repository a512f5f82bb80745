"""What a table of LLM-API settings is made of: kinds, bounds, versions, objects and variants."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any


class Kind(Enum):
    """What a value is; the text is what a message says that it must be."""

    FLAG = "true or false"
    WHOLE = "a whole number"
    REAL = "a number"
    TEXT = "text"
    WHOLES = "a list of whole numbers"
    REALS = "a list of numbers"
    TEXTS = "a list of texts"
    LISTS = "a list of lists of whole numbers"
    SCHEDULE = "a map from whole numbers to whole numbers"
    WORDS = "a map from texts to texts"
    MAP = "a map"
    ANY = "any value"
    OBJECT = "a map of settings"
    PYTHON = "a Python object"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting: its kind, TensorRT-LLM's default, and which values it takes.

    `null` allows no value, `words` allows these beside what the kind is, `choices` allows only
    these. Bounds are inclusive, except `above` and `below`; those of a list are its elements'.
    `since` and `until` are TensorRT-LLM's minor versions: the first that has it and the first that
    doesn't. `status` is upstream's: stable, beta, prototype or deprecated.
    """

    name: str
    kind: Kind
    default: Any = None
    null: bool = False
    words: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    of: Object | None = None
    required: bool = False
    since: str = "1.2"
    until: str | None = None
    status: str = "stable"


@dataclass(frozen=True, kw_only=True)
class Object:
    """Settings that belong together, by name; with a `key`, which they are depends on its value.

    Then `variants` are the settings for each value of `key`, and without one it is `default`, or
    must be given.
    """

    settings: Mapping[str, Setting]
    key: str | None = None
    variants: Mapping[str, Mapping[str, Setting]] | None = None
    default: str | None = None

    def of(self, variant: Any) -> Mapping[str, Setting]:
        """All settings of a variant; the common ones where it isn't known."""
        return {**self.settings, **((self.variants or {}).get(variant) or {})}

    def every(self) -> Iterator[Setting]:
        """The settings of all variants, one of each name."""
        merged: dict[str, Setting] = dict(self.settings)
        for settings in (self.variants or {}).values():
            merged = {**settings, **merged}
        yield from merged.values()


def flag(name: str, default: bool | None = False, **more: Any) -> Setting:
    """A setting that is true or false."""
    return _setting(name, Kind.FLAG, default, more)


def whole(name: str, default: int | None = None, **more: Any) -> Setting:
    """A setting that is a whole number."""
    return _setting(name, Kind.WHOLE, default, more)


def real(name: str, default: float | None = None, **more: Any) -> Setting:
    """A setting that is a number."""
    return _setting(name, Kind.REAL, default, more)


def text(name: str, default: str | None = None, *choices: str, **more: Any) -> Setting:
    """A setting that is text, or one of `choices`."""
    return _setting(name, Kind.TEXT, default, {**more, "choices": choices})


def value(name: str, kind: Kind, default: Any = None, **more: Any) -> Setting:
    """A setting of another kind."""
    return _setting(name, kind, default, more)


def group(name: str, of: Object, **more: Any) -> Setting:
    """A setting that is an object; `null` where upstream takes no object at all."""
    return _setting(name, Kind.OBJECT, None, {"null": True, **more, "of": of})


def _setting(name: str, kind: Kind, default: Any, more: dict[str, Any]) -> Setting:
    null = default is None and not more.get("required", False)
    return Setting(name=name, kind=kind, default=default, **{"null": null, **more})


def table(*settings: Setting) -> Mapping[str, Setting]:
    """The settings by name."""
    return {setting.name: setting for setting in settings}


def names(of: Object, prefix: str = "") -> Iterator[tuple[str, Setting]]:
    """Every setting below `of` with its dotted name, in the order of the table."""
    for setting in of.every():
        yield prefix + setting.name, setting
        if setting.of is not None:
            yield from names(setting.of, f"{prefix}{setting.name}.")
