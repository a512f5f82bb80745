"""JSON bodies to typed structs, with complaints that name the parameter."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeVar

import msgspec

from server.errors import InvalidRequestError, shown
from server.protocol.json_size import check_values
from server.protocol.parameters import Fate, Honoured, Refused

T = TypeVar("T")

MAX_DEPTH = 64
"""How deep a value may be nested that is passed on as it is."""

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}", re.ASCII)
"""OpenAI's pattern for the names of functions and forms."""
Name = Annotated[str, msgspec.Meta(extra_json_schema={"pattern": f"^{_NAME.pattern}$"})]
"""Such a name in a struct, whose schema says so; `check_name` checks it."""
_PATH = re.compile(r" - at (?:`key` in )?`\$(?P<path>[^`]*)`$")
_FIELD = re.compile(r"^Object (?:missing required|contains unknown) field `(?P<name>[^`]*)`$")

_decode_keys = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def decode(body: bytes, decoder: msgspec.json.Decoder[T], table: Mapping[str, Fate]) -> T:
    """`body` as the dialect's struct, every parameter in it accounted for by `table`.

    Raises InvalidRequestError, with `param` where one is to blame.
    """
    check_values(body)
    try:
        for name, raw in _decode_keys(body).items():
            fate = table.get(name)
            if not isinstance(fate, Honoured):
                _check(name, raw, fate)
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _explained(error, "") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequestError("the body is not valid JSON", found=str(error)) from error
    except RecursionError as error:
        raise InvalidRequestError("the body is nested too deeply") from error


def convert(value: Mapping[str, Any], kind: type[T], where: str) -> T:
    """An object inside a body as a struct. Raises InvalidRequestError by the place in `where`."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise _explained(error, where) from error


def require(condition: bool, what: str, *, param: str) -> None:
    """Raise InvalidRequestError naming `param` unless `condition` holds."""
    if not condition:
        raise InvalidRequestError(what, param=param)


def check_name(name: str, param: str) -> None:
    """Refuse what can't be the name of a function or a form."""
    shape = f"a name is 1 to 64 letters, digits, _ and - - '{param}'"
    require(_NAME.fullmatch(name) is not None, shape, param=param)


def check_range(
    name: str, value: float | None, low: float | None = None, high: float | None = None
) -> None:
    """Refuse a number outside [low, high], in OpenAI's words."""
    if value is None:
        return
    if low is not None and value < low:
        complaint = f"{value} is less than the minimum of {low} - '{name}'"
        raise InvalidRequestError(complaint, param=name)
    if high is not None and value > high:
        complaint = f"{value} is greater than the maximum of {high} - '{name}'"
        raise InvalidRequestError(complaint, param=name)


def is_json(text: str) -> bool:
    """Whether it is all of a JSON document."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def check_depth(value: object, param: str) -> None:
    """Refuse JSON nested more than MAX_DEPTH deep: templates walk it by recursion."""
    level, depth = [value], 0
    while level := [inner for outer in level for inner in _inside(outer)]:
        depth += 1
        require(depth <= MAX_DEPTH, f"nested too deeply - '{param}'", param=param)


def _inside(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _check(name: str, raw: msgspec.Raw, fate: Fate | None) -> None:
    if fate is None:
        what = f"Unrecognized request argument supplied: {shown(name)}"
        raise InvalidRequestError(what, param=shown(name))
    if not isinstance(fate, Refused):
        return
    value = msgspec.json.decode(raw)
    if value is not None and not any(_same(value, neutral) for neutral in fate.neutral):
        raise InvalidRequestError(f"'{name}' can't be honoured: {fate.reason}", param=name)


def _same(value: object, neutral: object) -> bool:
    """Equality under which true is not 1."""
    return isinstance(value, bool) == isinstance(neutral, bool) and value == neutral


def _explained(error: msgspec.ValidationError, path: str) -> InvalidRequestError:
    """What is wrong with the value at `path`, or with what is in it."""
    message = str(error)
    if at := _PATH.search(message):
        known, _, _ = at["path"].partition("[...]")  # msgspec doesn't tell a mapping's key
        path, message = f"{path}{known}".removeprefix("."), message[: at.start()]
    if field := _FIELD.match(message):
        path = f"{path}.{field['name']}" if path else field["name"]
    path = shown(path)
    where = f" - '{path}'" if path else ""
    return InvalidRequestError(shown(message) + where, param=path or None)
