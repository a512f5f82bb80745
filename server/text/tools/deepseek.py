"""DeepSeek's calls, between markers of its own.

V3 and R1 write `function`, the name, and the arguments in a fenced block; V3.1 writes the name and
the arguments alone. No template of theirs tells of functions.
"""

from __future__ import annotations

from functools import partial

from server.text.scan import json_scan
from server.text.scan.scanner import Scan, Scanner
from server.text.tools import section
from server.text.tools.format import Functions
from server.text.tools.word import MAX_NAME_CHARS

CALLS_BEGIN, CALLS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
CALL_BEGIN, CALL_END = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"
SEPARATOR = "<｜tool▁sep｜>"

_HOW_TO_CALL = f"""\
To call functions, end your answer with all the calls, each with a name and its arguments, a JSON \
object, in exactly this form:
{CALLS_BEGIN}{CALL_BEGIN}{{first}}{CALL_END}{CALL_BEGIN}{{next}}{CALL_END}{CALLS_END}
Where no function helps, answer without a call."""
HOW_TO_CALL = _HOW_TO_CALL.format(
    first=f"name{SEPARATOR}{{arguments}}", next=f"next name{SEPARATOR}{{its arguments}}"
)
FENCED_HOW_TO_CALL = _HOW_TO_CALL.format(
    first=f"function{SEPARATOR}name\n```json\n{{arguments}}\n```",
    next=f"function{SEPARATOR}next name\n```json\n{{its arguments}}\n```",
)


def read(scanner: Scanner, functions: Functions) -> Scan[None]:
    """The calls behind the first marker, of all or of one."""
    call = partial(_call, scanner)
    yield from section.calls(scanner, call, begin=CALL_BEGIN, end=CALLS_END, begun=True)


def _call(scanner: Scanner) -> Scan[bool]:
    name = yield from scanner.within(SEPARATOR, MAX_NAME_CHARS)
    if name is None:
        return False
    if (yield from scanner.after_space()) != "{":
        name = yield from scanner.within("\n", MAX_NAME_CHARS)
        yield from scanner.after_space()
        _ = (yield from scanner.literal("```json")) or (yield from scanner.literal("```"))
    if not name or not name.strip() or (yield from scanner.after_space()) != "{":
        return False
    scanner.call(name.strip())
    yield from json_scan.value(scanner, scanner.arguments)
    yield from scanner.closing("```")
    yield from scanner.closing(CALL_END)
    return True
