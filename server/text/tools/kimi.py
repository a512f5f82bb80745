"""Kimi K2's calls: `functions.weather:0`, which is the call's id, and arguments between markers.

Its templates show the model the ids of earlier calls, so that they keep the form it gave them. It
may write one of another form where a name belongs: only known functions are called.
"""

from __future__ import annotations

import re
from functools import partial

from server.text.scan import json_scan
from server.text.scan.scanner import Scan, Scanner
from server.text.tools import section
from server.text.tools.format import Functions
from server.text.tools.word import MAX_NAME_CHARS

CALLS_BEGIN, CALLS_END = "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"
CALL_BEGIN, CALL_END = "<|tool_call_begin|>", "<|tool_call_end|>"
ARGUMENTS = "<|tool_call_argument_begin|>"

_ID = re.compile(r"(?:functions\.)?(.+?)(?::\d+)?")


def read(scanner: Scanner, functions: Functions) -> Scan[None]:
    """The calls behind the first marker, of all or of one."""
    call = partial(_call, scanner, functions)
    yield from section.calls(scanner, call, begin=CALL_BEGIN, end=CALLS_END, begun=True)


def _call(scanner: Scanner, functions: Functions) -> Scan[bool]:
    written = yield from scanner.within(ARGUMENTS, MAX_NAME_CHARS)
    found = _ID.fullmatch((written or "").strip())
    if found is None or found[1] not in functions or (yield from scanner.after_space()) != "{":
        return False
    scanner.call(found[1], found[0] if found[0] != found[1] else None)
    yield from json_scan.value(scanner, scanner.arguments)
    yield from scanner.closing(CALL_END)
    return True
