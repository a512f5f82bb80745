"""Calls as Python writes them: `[weather(city="Rome", days=2), now()]`; Llama's, LFM's, Olmo's.

They leave a call at a time, converted to JSON. As brackets begin many a text, only known functions
with literal keyword arguments are calls.
"""

from __future__ import annotations

from server.text.scan import json_scan
from server.text.scan.scanner import Scan, Scanner
from server.text.tools.format import Functions, Reader
from server.text.tools.python_literals import keywords_as_json
from server.text.tools.word import word


def reader(*, end: str) -> Reader:
    """A reader of a list of calls, behind which there may be an `end`."""

    def read(scanner: Scanner, functions: Functions) -> Scan[None]:
        if (yield from scanner.after_space()) != "[":
            return
        scanner.at += 1
        while True:
            yield from scanner.after_space()
            if not (yield from _call(scanner, functions)):
                return
            scanner.hold()
            letter = yield from scanner.after_space()
            scanner.at += letter in (",", "]")
            if letter == "]":
                scanner.drop()
                yield from scanner.closing(end)
            if letter != ",":
                return

    return read


def lines(*, end: str) -> Reader:
    """A reader of calls with a line for each, up to an `end`."""

    def read(scanner: Scanner, functions: Functions) -> Scan[None]:
        while True:
            yield from scanner.after_space()
            if not (yield from _call(scanner, functions)):
                return
            yield from scanner.closing(end)
            scanner.hold()

    return read


def _call(scanner: Scanner, functions: Functions) -> Scan[bool]:
    name = yield from word(scanner)
    if name not in functions or (yield from scanner.peek()) != "(":
        return False
    written: list[str] = []
    whole = yield from json_scan.nested(scanner, written.append, json_scan.PYTHON)
    arguments = keywords_as_json("".join(written)) if whole else None
    if arguments is None:
        return False
    scanner.call(name)
    scanner.arguments(arguments)
    return True
