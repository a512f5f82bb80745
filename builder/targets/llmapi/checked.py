"""Values held against a table of LLM-API settings: unknown or mistyped is refused by name.

TensorRT-LLM takes its settings as pydantic models that forbid what they don't know, but only on
the GPU, after the server has started. The same is said here before anything is written.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Any, NoReturn

from builder.errors import LimitError
from builder.targets.llmapi.setting import Kind, Object, Setting
from builder.targets.llmapi.typed import ELEMENTS, FREE, Raw, read, typed_keys


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Nested maps laid over one another; what isn't a map replaces."""
    both = dict(under)
    for name, item in over.items():
        below = both.get(name)
        deeper = isinstance(item, Mapping) and isinstance(below, Mapping)
        both[name] = merged(below, item) if deeper else item  # type: ignore[arg-type]
    return both


def checked(of: Object, values: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """The values with their kinds, in the table's order.

    Raises LimitError for the first name that isn't a setting, value that isn't of its kind or
    range, and setting that must be there and isn't. `where` is the dotted name so far.
    """
    known = of.of(_variant(of, values, where))
    for name in values:
        if name not in known:
            _refuse_unknown(of, where + name, known, where)
    for setting in known.values():
        if setting.required and values.get(setting.name) is None:
            raise LimitError(f"{where}{setting.name} must be set", do=f"it is {setting.kind.value}")
    return {
        setting.name: _value(setting, values[setting.name], where + setting.name)
        for setting in known.values()
        if setting.name in values
    }


def _variant(of: Object, values: Mapping[str, Any], where: str) -> Any:
    if of.key is None or of.variants is None:
        return None
    found = values.get(of.key, of.default)
    found = found.text if isinstance(found, Raw) else found
    if not isinstance(found, str) or found not in of.variants:
        raise LimitError(
            f"{where}{of.key} must be one of {', '.join(of.variants)}",
            found=repr(found) if found is not None else "none",
            do=_meant(difflib.get_close_matches(str(found), of.variants, n=1)),
        )
    return found


def _refuse_unknown(of: Object, name: str, known: Mapping[str, Setting], where: str) -> NoReturn:
    leaf = name.rpartition(".")[2]
    if any(setting.name == leaf for setting in of.every()):
        raise LimitError(
            f"{name} isn't a setting of this {of.key}", do=f"it takes {', '.join(known)}"
        )
    near = [where + each for each in difflib.get_close_matches(leaf, known, n=3)]
    raise LimitError(f"the LLM API has no setting {name}", do=_meant(near))


def _meant(near: list[str]) -> str | None:
    return f"did you mean {' or '.join(near)}" if near else None


def _value(setting: Setting, found: Any, name: str) -> Any:
    """The value as its setting's kind."""
    if isinstance(found, Raw):
        found = read(setting, found.text, name)
    if setting.kind is Kind.PYTHON:
        raise LimitError(f"{name} is a Python object", do="it can't be set in a file; leave it out")
    if found is None:
        if setting.null:
            return None
        raise LimitError(f"{name} can't be null", do=f"it is {setting.kind.value}")
    if isinstance(found, str) and found in setting.words:
        return found
    if setting.of is not None:
        if not isinstance(found, Mapping):
            _refuse_value(setting, found, name)
        return checked(setting.of, found, f"{name}.")
    if setting.kind is Kind.REAL:
        found = _real(found)
    if setting.kind is Kind.REALS and isinstance(found, list):
        found = [_real(each) for each in found]
    if setting.kind in FREE and isinstance(found, Mapping):
        found = typed_keys(found, setting.kind)
    if not _is(setting.kind, found):
        _refuse_value(setting, found, name)
    return _in_range(setting, found, name)


def _real(found: Any) -> Any:
    return float(found) if type(found) is int and _held(found) else found


def _held(found: Any) -> bool:
    """Whether a number is one that TensorRT-LLM can hold, in 64 bits."""
    if type(found) is float:
        return math.isfinite(found)
    return type(found) is not int or abs(found) < 1 << 63


def _in_range(setting: Setting, found: Any, name: str) -> Any:
    if setting.choices:
        several = found if isinstance(found, list) else [found]
        for each in several:
            if each not in setting.choices:
                _refuse_value(setting, each, name)
    if any(bound is not None for bound in _bounds(setting).values()):
        for number in found if isinstance(found, list) else [found]:
            if not _bounded(setting, number):
                _refuse_value(setting, found, name)
    return found


def _bounds(setting: Setting) -> dict[str, float | None]:
    return {
        "at least": setting.least,
        "above": setting.above,
        "at most": setting.most,
        "below": setting.below,
    }


def _bounded(setting: Setting, number: Any) -> bool:
    least, above, most, below = _bounds(setting).values()
    return not (
        (least is not None and number < least)
        or (above is not None and number <= above)
        or (most is not None and number > most)
        or (below is not None and number >= below)
    )


def _refuse_value(setting: Setting, found: Any, name: str) -> NoReturn:
    wanted = setting.kind.value
    if setting.choices:
        wanted = f"one of {', '.join(setting.choices)}"
    bounds = [f"{word} {bound}" for word, bound in _bounds(setting).items() if bound is not None]
    wanted = ", ".join([wanted, *([" and ".join(bounds) + ","] if bounds else [])])
    words = [*setting.words, *(["null"] if setting.null else [])]
    wanted = wanted if words else wanted.rstrip(",")
    near = difflib.get_close_matches(str(found), setting.choices, n=1)
    raise LimitError(
        f"{name} must be {' or '.join([wanted, *words])}", found=repr(found), do=_meant(near)
    )


def _is(kind: Kind, found: Any) -> bool:
    """Whether a value, as JSON has it, is of a kind."""
    if not _held(found):
        return False
    if kind in _PLAIN:
        return type(found) is _PLAIN[kind]
    if kind in ELEMENTS:
        return isinstance(found, list) and all(_is(ELEMENTS[kind], each) for each in found)
    if kind in (Kind.MAP, Kind.WORDS, Kind.SCHEDULE) and not isinstance(found, Mapping):
        return False
    if kind is Kind.WORDS:
        return all(type(each) is str for pair in found.items() for each in pair)
    if kind is Kind.SCHEDULE:
        return all(type(each) is int for pair in found.items() for each in pair)
    return True


_PLAIN = {Kind.FLAG: bool, Kind.WHOLE: int, Kind.REAL: float, Kind.TEXT: str}
