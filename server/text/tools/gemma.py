"""Gemma's calls: `call:weather{city:<|"|>Rome<|"|>,days:[1,2]}`, which has quotes of its own.

FunctionGemma's differ by the marks. Strings leave while they are written, other values when they
are whole. Sources: Gemma 4's chat template, and vLLM's parser of FunctionGemma's.
"""

from __future__ import annotations

import json

from server.text.scan.scanner import SPACE, Scan, Scanner
from server.text.tools import strings
from server.text.tools.format import Functions, Reader
from server.text.tools.python_literals import value_as_json
from server.text.tools.word import MAX_NAME_CHARS, word

_CALL = "call:"
_MAX_DEPTH = 64
_MAX_SCALAR_CHARS = 4096
_SCALAR_ENDS = frozenset(",]}")


def reader(*, quote: str, end: str) -> Reader:
    """A reader of the call behind a start, whose strings are between two of `quote`."""

    def read(scanner: Scanner, functions: Functions) -> Scan[None]:
        yield from scanner.after_space()
        if not (yield from scanner.literal(_CALL)):
            return
        name = yield from word(scanner)
        if not name or (yield from scanner.after_space()) != "{":
            return
        scanner.call(name)
        if (yield from _value(scanner, quote, 0)):
            yield from scanner.closing(end)

    return read


def _value(scanner: Scanner, quote: str, depth: int) -> Scan[bool]:
    """Tell the value at `at`; whether its end came."""
    letter = yield from scanner.after_space()
    if letter in ("{", "["):
        return depth < _MAX_DEPTH and (yield from _container(scanner, quote, depth, letter))
    if (yield from scanner.literal(quote)):
        scanner.arguments('"')
        whole = yield from strings.told(scanner, quote)
        scanner.arguments('"' if whole else "")
        return whole
    return (yield from _scalar(scanner))


def _container(scanner: Scanner, quote: str, depth: int, opening: str) -> Scan[bool]:
    closing = "}" if opening == "{" else "]"
    scanner.at += 1
    scanner.arguments(opening)
    letter = yield from scanner.after_space()
    while letter and letter != closing:
        if opening == "{" and not (yield from _key(scanner, quote)):
            return False
        if not (yield from _value(scanner, quote, depth + 1)):
            return False
        letter = yield from scanner.after_space()
        if letter == ",":
            scanner.arguments(", ")
            scanner.at += 1
            letter = yield from scanner.after_space()
        elif letter != closing:
            return False
    scanner.at += len(letter)
    scanner.arguments(letter)
    return bool(letter)


def _key(scanner: Scanner, quote: str) -> Scan[bool]:
    quoted = yield from scanner.literal(quote)
    key = yield from scanner.within(quote if quoted else ":", MAX_NAME_CHARS)
    if quoted:
        yield from scanner.after_space()
    if key is None or (quoted and not (yield from scanner.literal(":"))):
        return False
    scanner.arguments(f"{json.dumps(key if quoted else key.strip(), ensure_ascii=False)}: ")
    return True


def _scalar(scanner: Scanner) -> Scan[bool]:
    """A number or a name; what is neither is a string that was written without quotes."""
    text = ""
    while (letter := (yield from scanner.peek())) and letter not in _SCALAR_ENDS:
        if len(text) == _MAX_SCALAR_CHARS:
            return False
        text += letter
        scanner.at += 1
    if not letter:
        return False
    text = text.strip(SPACE)
    scanner.arguments(value_as_json(text) or json.dumps(text, ensure_ascii=False))
    return True
