"""What a setting of a repository is, and the words in which `options.py` declares each one.

A setting is declared once, as a field of RepositoryOptions. From that come its check, the
command's option and the parameter in `config.pbtxt`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from enum import Enum
from functools import cache
from typing import Any

from builder.errors import LimitError
from triton_repo.settings import values
from triton_repo.settings.needs import Need


class Kind(Enum):
    """What a setting's value is."""

    FLAG = "true or false"
    WHOLE = "a whole number"
    FRACTION = "a number"
    CHOICE = "one of its choices"
    TEXT = "a text"
    LIST = "whole numbers with commas between them"
    GROUPS = "lists of whole numbers with semicolons between them"
    PATHS = "a tree's paths, {0},{0,0},{1}"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting of a repository.

    `parameter` is upstream's name among the model's parameters; "" is for one that is elsewhere
    in the config. `low` and `high` bound numbers; `choices` are a CHOICE's. `needs` is what the
    engine must have where the setting isn't one of `idle`, or that for some of its values. `why`
    is for a default that isn't upstream's.
    """

    name: str
    group: str
    kind: Kind
    default: Any
    help: str
    parameter: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    needs: Need | Mapping[str, Need] | None = None
    idle: tuple[Any, ...] = (None, False)
    why: str = ""

    def checked(self, value: Any) -> Any:
        """`value` where it is one of the setting's. Raises LimitError where it isn't."""
        if value is None and self.default is None:
            return None
        if not _FITS[self.kind](value):
            raise LimitError(f"{self.name} must be {self._wanted()}", found=repr(value))
        if self.low is not None:
            for number in values.flat(value):
                self._require_range(number)
        if self.kind is Kind.CHOICE and value not in self.choices:
            raise LimitError(f"{self.name} must be {self._wanted()}", found=repr(value))
        return value

    def read(self, text: str) -> Any:
        """The value that a word of the command line means. Raises LimitError for another."""
        try:
            value = _READ[self.kind](text)
        except ValueError:
            raise LimitError(f"{self.name} must be {self._wanted()}", found=repr(text)) from None
        return self.checked(value)

    def _require_range(self, number: float) -> None:
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        if not low <= number <= high:  # so that nan isn't either
            raise LimitError(f"{self.name} must be {self._wanted()}", found=str(number))

    def _wanted(self) -> str:
        if self.choices:
            return " or ".join(self.choices)
        if self.low is None:
            return self.kind.value
        end = f"at least {self.low:g}" if self.high is None else f"{self.low:g} to {self.high:g}"
        return f"{self.kind.value}, {end}"

    def need(self, value: Any) -> Need | None:
        """What the engine must have for this value."""
        if isinstance(self.needs, Mapping):
            return self.needs.get(value)
        return None if value in self.idle else self.needs


_READ: Mapping[Kind, Callable[[str], Any]] = {
    Kind.FLAG: values.flag,
    Kind.WHOLE: int,
    Kind.FRACTION: float,
    Kind.CHOICE: str,
    Kind.TEXT: str,
    Kind.LIST: values.numbers,
    Kind.GROUPS: values.groups,
    Kind.PATHS: values.paths,
}


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _numbers(value: Any) -> bool:
    return isinstance(value, tuple) and bool(value) and all(map(_whole, value))


def _nested(value: Any) -> bool:
    return isinstance(value, tuple) and bool(value) and all(map(_numbers, value))


_FITS: Mapping[Kind, Callable[[Any], bool]] = {
    Kind.FLAG: lambda value: isinstance(value, bool),
    Kind.WHOLE: _whole,
    Kind.FRACTION: lambda value: _whole(value) or isinstance(value, float),
    Kind.CHOICE: lambda value: isinstance(value, str),
    Kind.TEXT: lambda value: isinstance(value, str) and value != "",
    Kind.LIST: _numbers,
    Kind.GROUPS: _nested,
    Kind.PATHS: _nested,
}


def setting(kind: Kind, default: Any, group: str, help: str, **others: Any) -> Any:
    """Declare a field of RepositoryOptions; `others` are fields of Setting."""
    made = {"kind": kind, "group": group, "help": help, **others}
    return field(default=default, metadata={"setting": made})


def of_field(declared: Field[Any]) -> Setting:
    """The setting that a field declares; its parameter has its name where it gives no other."""
    made = declared.metadata["setting"]
    return Setting(
        name=declared.name,
        default=declared.default,
        **{"parameter": declared.name, **made},
    )


@cache
def table(options: type[Any]) -> dict[str, Setting]:
    """Every setting by name, in the order of their declaration."""
    return {declared.name: of_field(declared) for declared in fields(options)}
