"""Calls as JSON: an object with a name and arguments, several of them, or a list of them.

Hermes and Qwen, Granite, Phi and Llama differ by what stands around it. The arguments leave as the
model wrote them, byte for byte.
"""

from __future__ import annotations

import json

from server.text.scan import json_scan
from server.text.scan.scanner import Scan, Scanner
from server.text.tools.format import Functions, Reader

_NAMES = ("name", "function", "tool_name")
_ARGUMENTS = ("arguments", "parameters")
_BESIDE = ("id", "type")
_NONE = "{}"


def reader(
    *, ends: tuple[str, ...] = (), separator: str | None = None, known_only: bool = False
) -> Reader:
    """A reader of one object, of several with space and `separator` between them, or of a list.

    `known_only` is for JSON that no marker announces: it is a call only when it has a known
    function's name, arguments, and nothing else.
    """

    def read(scanner: Scanner, functions: Functions) -> Scan[None]:
        known = functions if known_only else None
        if (yield from scanner.after_space()) == "[":
            yield from _list(scanner, known)
        else:
            yield from _objects(scanner, known, separator)
        if scanner.calls_made:
            yield from scanner.closing(*ends)

    return read


def keyed(*, end: str) -> Reader:
    """A reader of a list of objects, each with a call's name as its key and the arguments there."""

    def read(scanner: Scanner, functions: Functions) -> Scan[None]:
        opens = yield from scanner.after_space()
        while opens in ("[", ","):
            scanner.at += 1
            if not (yield from _keyed_call(scanner)):
                return
            scanner.hold()
            opens = yield from scanner.after_space()
        if opens == "]":
            scanner.at += 1
            scanner.drop()
            yield from scanner.closing(end)

    return read


def named(name: str) -> Reader:
    """A reader of an answer that is nothing but the arguments of one call of `name`."""

    def read(scanner: Scanner, functions: Functions) -> Scan[None]:
        if (yield from scanner.after_space()) == "{":
            scanner.call(name)
            yield from json_scan.value(scanner, scanner.arguments)

    return read


def demanded(scanner: Scanner, functions: Functions) -> Scan[None]:
    """Reads an answer that is nothing but a list of calls, or one of them."""
    yield from reader()(scanner, functions)
    scanner.settle_call()


def listed(*, wrapper: str | None) -> Reader:
    """A reader of an answer that is a list of calls of known functions, or nothing of the kind.

    With a `wrapper` the list is in an object, under that key.
    """

    def read(scanner: Scanner, functions: Functions) -> Scan[None]:
        opens = yield from scanner.after_space()
        if wrapper is not None:
            opens = (yield from _wrapped(scanner, wrapper)) if opens == "{" else ""
        if opens == "[":
            yield from _list(scanner, functions)
        if wrapper is not None and scanner.calls_made:
            scanner.hold()
            yield from scanner.after_space()
            if (yield from scanner.literal("}")):
                scanner.drop()

    return read


def _wrapped(scanner: Scanner, wrapper: str) -> Scan[str]:
    """What stands behind the object's first key, if that is the wrapper's."""
    scanner.at += 1
    yield from scanner.after_space()
    if not (yield from scanner.literal(f'"{wrapper}"')):
        return ""
    yield from scanner.after_space()
    yield from scanner.literal(":")
    return (yield from scanner.after_space())


def _list(scanner: Scanner, known: Functions | None) -> Scan[None]:
    scanner.at += 1
    letter = yield from scanner.after_space()
    while letter == "{":
        if not (yield from _Call(scanner, known).read()):
            return
        scanner.hold()
        letter = yield from scanner.after_space()
        if letter == ",":
            scanner.at += 1
            letter = yield from scanner.after_space()
        elif letter == "]":
            scanner.at += 1
            scanner.drop()


def _keyed_call(scanner: Scanner) -> Scan[bool]:
    """The call in the object that comes next; whether the object's end came."""
    if (yield from scanner.after_space()) != "{":
        return False
    scanner.at += 1
    yield from scanner.after_space()
    raw: list[str] = []
    yield from json_scan.value(scanner, raw.append)
    name = _string("".join(raw))
    if not name or (yield from scanner.after_space()) != ":":
        return False
    scanner.at += 1
    if (yield from scanner.after_space()) != "{":
        return False
    scanner.call(name)
    yield from json_scan.value(scanner, scanner.arguments)
    closes = (yield from scanner.after_space()) == "}"
    scanner.at += closes
    return closes


def _objects(scanner: Scanner, known: Functions | None, separator: str | None) -> Scan[None]:
    letter = yield from scanner.peek()
    while letter == "{" and (yield from _Call(scanner, known).read()) and separator is not None:
        scanner.hold()
        letter = yield from scanner.after_space()
        if letter and letter == separator:
            scanner.at += 1
            letter = yield from scanner.after_space()


class _Call:
    """One object, that may turn out to be a call: `known` are the names that it may have."""

    def __init__(self, scanner: Scanner, known: Functions | None) -> None:
        self._scanner, self._known = scanner, known
        self._name: str | None = None
        self._late: str | None = None
        self._begun = self._inner = False

    def read(self) -> Scan[bool]:
        """Read the object at `at`; whether a call came of it."""
        scanner = self._scanner
        scanner.at += 1
        while (letter := (yield from scanner.after_space())) != "}":
            if letter == ",":
                scanner.at += 1
                yield from scanner.after_space()
            key = yield from json_scan.text(scanner)
            if key is None or (yield from scanner.after_space()) != ":":
                return self._begun
            scanner.at += 1
            if not (yield from self._field(key, (yield from scanner.after_space()))):
                return self._begun
        scanner.at += 1
        return self._begun or self._inner or self._whole()

    def _field(self, key: str, letter: str) -> Scan[bool]:
        if key == "function" and letter == "{" and not self._inner:
            self._inner = True
            yield from self.read()
            self._inner = False
            return True
        if key in _ARGUMENTS and letter == "{" and self._begin():
            return (yield from json_scan.value(self._scanner, self._scanner.arguments))
        if self._known is not None and key not in (*_NAMES, *_ARGUMENTS, *_BESIDE):
            return False
        raw: list[str] = []
        whole = yield from json_scan.value(self._scanner, raw.append)
        if key in _NAMES:
            self._name = _string("".join(raw))
            return whole and (self._known is None or self._name in self._known)
        if key in _ARGUMENTS:
            self._late = "".join(raw)
        return whole

    def _begin(self) -> bool:
        """Make the call, if its name is there; once."""
        if self._begun or not self._name:
            return False
        self._scanner.call(self._name)
        self._begun = True
        return True

    def _whole(self) -> bool:
        """The call of a whole object whose arguments didn't come after its name."""
        late = self._late
        if late is None and self._known is not None:
            return False
        arguments = _NONE if late in (None, "null", '""') else _unquoted(late or _NONE)
        if not arguments.startswith("{") or not self._begin():
            return False
        self._scanner.arguments(arguments)
        return True


def _unquoted(raw: str) -> str:
    """Arguments that some models write as a string with JSON in it."""
    return _string(raw) or "" if raw.startswith('"') else raw


def _string(raw: str) -> str | None:
    """A JSON string, decoded; None for what isn't one, or has half of a surrogate pair in it."""
    try:
        found = json.loads(raw)
        return found if isinstance(found, str) and found.encode() else None
    except (ValueError, RecursionError):
        return None
