"""JSON bodies to typed structs, with complaints that name the parameter."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

import msgspec

from server.errors import InvalidRequestError
from server.protocol.parameters import Fate, Honoured, Refused

T = TypeVar("T")

_PATH = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")
_FIELD = re.compile(r"^Object (?:missing required|contains unknown) field `(?P<name>[^`]*)`$")
_MAX_SHOWN_CHARS = 100

_decode_keys = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def decode(body: bytes, decoder: msgspec.json.Decoder[T], table: Mapping[str, Fate]) -> T:
    """`body` as the dialect's struct, every parameter in it accounted for by `table`.

    Raises InvalidRequestError, with `param` where one is to blame.
    """
    try:
        for name, raw in _decode_keys(body).items():
            fate = table.get(name)
            if not isinstance(fate, Honoured):
                _check(name, raw, fate)
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _explained(error) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequestError("the body is not valid JSON", found=str(error)) from error
    except RecursionError as error:
        raise InvalidRequestError("the body is nested too deeply") from error


def require(condition: bool, what: str, *, param: str) -> None:
    """Raise InvalidRequestError naming `param` unless `condition` holds."""
    if not condition:
        raise InvalidRequestError(what, param=param)


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


def _check(name: str, raw: msgspec.Raw, fate: Fate | None) -> None:
    if fate is None:
        shown = name[:_MAX_SHOWN_CHARS]
        raise InvalidRequestError(f"Unrecognized request argument supplied: {shown}", param=shown)
    if not isinstance(fate, Refused):
        return
    value = msgspec.json.decode(raw)
    if value is not None and not any(_same(value, neutral) for neutral in fate.neutral):
        raise InvalidRequestError(f"'{name}' can't be honoured: {fate.reason}", param=name)


def _same(value: object, neutral: object) -> bool:
    """Equality under which true is not 1."""
    return isinstance(value, bool) == isinstance(neutral, bool) and value == neutral


def _explained(error: msgspec.ValidationError) -> InvalidRequestError:
    message = str(error)
    path = ""
    if at := _PATH.search(message):
        path, message = at["path"], message[: at.start()]
    if field := _FIELD.match(message):
        path = f"{path}.{field['name']}" if path else field["name"]
    path = path[:_MAX_SHOWN_CHARS]
    where = f" - '{path}'" if path else ""
    return InvalidRequestError(message[: 2 * _MAX_SHOWN_CHARS] + where, param=path or None)
