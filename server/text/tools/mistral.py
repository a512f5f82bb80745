"""Mistral's calls: `[TOOL_CALLS][{…}, {…}]`, since its 11th tokenizer `[TOOL_CALLS]name[ARGS]{…}`.

Each of the newer kind has a marker of its own; some have `[CALL_ID]` and an id behind the name.
"""

from __future__ import annotations

from server.text.scan import json_scan
from server.text.scan.scanner import Scan, Scanner
from server.text.tools import json_calls
from server.text.tools.format import Functions
from server.text.tools.word import word

START = "[TOOL_CALLS]"
ARGUMENTS = "[ARGS]"
CALL_ID = "[CALL_ID]"

_read_json = json_calls.reader()


def read(scanner: Scanner, functions: Functions) -> Scan[None]:
    """The calls behind one marker."""
    letter = yield from scanner.after_space()
    if letter in ("[", "{"):
        yield from _read_json(scanner, functions)
        return
    name = yield from word(scanner)
    if (yield from scanner.literal(CALL_ID)):
        yield from word(scanner)
    yield from scanner.literal(ARGUMENTS)
    if name and (yield from scanner.after_space()) == "{":
        scanner.call(name)
        yield from json_scan.value(scanner, scanner.arguments)
