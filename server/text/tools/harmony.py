"""Harmony, gpt-oss's way: an answer is messages, each with a channel, some with a recipient.

    <|channel|>analysis<|message|>Rain in Rome? I must look.<|end|><|start|>assistant
    <|channel|>commentary to=functions.weather <|constrain|>json<|message|>{"city": "Rome"}<|call|>

`analysis` is reasoning, `final` content, and so is `commentary`, unless it is to a function: that
is a call. Source: OpenAI's description of the format, and the models' chat template.
"""

from __future__ import annotations

import re

from server.text.scan import json_scan
from server.text.scan.markers import markers
from server.text.scan.scanner import Scan, Scanner
from server.text.tools.format import Functions

START, CHANNEL, MESSAGE = "<|start|>", "<|channel|>", "<|message|>"
END, CALL, RETURN = "<|end|>", "<|call|>", "<|return|>"
MARKERS = (START, CHANNEL, "<|constrain|>", MESSAGE, END, CALL, RETURN)
ASSISTANT = f"{START}assistant"
FINAL = f"{CHANNEL}final{MESSAGE}"

_MAX_HEADER_CHARS = 512
_RECIPIENT = "to="
_TO = re.compile(rf"{_RECIPIENT}([^\s<]+)")
_ANALYSIS = re.compile(rf"{re.escape(CHANNEL)}\s*analysis\b")
_FUNCTIONS = "functions."
_BETWEEN = "\n\n"
_OPENINGS = (START, CHANNEL)
_ENDS = (END, CALL, RETURN, *_OPENINGS)


def read(scanner: Scanner, functions: Functions) -> Scan[None]:
    """The answer's messages, up to text that is in none."""
    first = True
    while (header := (yield from _header(scanner))) is not None:
        scanner.drop()
        recipient = _TO.search(header)
        name = _function(recipient[1], functions) if recipient else None
        if name:
            yield from _call(scanner, name)
        reasoning = bool(name or recipient or _ANALYSIS.search(header))
        if reasoning != scanner.in_reasoning:
            scanner.section(reasoning=reasoning)
        if not first:
            scanner.show(_BETWEEN)
        first = False
        marker = yield from scanner.until(markers(*_ENDS))
        scanner.drop()
        scanner.at -= len(marker) if marker in _OPENINGS else 0
    if scanner.in_reasoning:
        scanner.section(reasoning=False)


def _header(scanner: Scanner) -> Scan[str | None]:
    """What is said of the message that begins at `at`; None where none does.

    Of one that is cut short by the answer's end nothing is shown.
    """
    scanner.hold()
    yield from scanner.after_space()
    for opening in (*_OPENINGS, _RECIPIENT):
        if (yield from scanner.literal(opening)):
            rest = yield from scanner.within(MESSAGE, _MAX_HEADER_CHARS)
            if rest is not None:
                return opening + rest
            cut = len(scanner.text) - scanner.at < _MAX_HEADER_CHARS + len(MESSAGE)
            if cut and opening in _OPENINGS:
                scanner.at = len(scanner.text)
                scanner.drop()
            return None
    return None


def _function(recipient: str, functions: Functions) -> str | None:
    """The function that is called; None where it is none of the client's."""
    name = recipient.removeprefix(_FUNCTIONS)
    return name if name in functions or (functions and name != recipient) else None


def _call(scanner: Scanner, name: str) -> Scan[None]:
    """A call, where the message's text is an object or nothing at all."""
    letter = yield from scanner.after_space()
    if letter == "{":
        scanner.call(name)
        yield from json_scan.value(scanner, scanner.arguments)
    elif not letter or (yield from _at_end(scanner)):
        scanner.call(name)
        scanner.arguments("{}")


def _at_end(scanner: Scanner) -> Scan[bool]:
    for end in _ENDS:
        if (yield from scanner.literal(end)):
            scanner.at -= len(end)
            return True
    return False
