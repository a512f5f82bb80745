"""An answer's text from its first word to its last: reasoning, then content and calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from server.text.parser.ahead import Ahead
from server.text.reasoning.table import ReasoningFormat
from server.text.scan.markers import markers
from server.text.scan.scanner import Scan, Scanner
from server.text.tools.format import Functions, ToolFormat

_PIECE_CHARS: Final = 256


def answer(
    scanner: Scanner,
    reasoning: ReasoningFormat | None,
    tools: ToolFormat | None,
    functions: Functions,
    *,
    opened: bool,
) -> Scan[None]:
    """Read all of it. `opened` says that the prompt ends inside the reasoning."""
    if reasoning and reasoning.read:
        yield from reasoning.read(scanner, functions if tools else {})
        scanner.settle()
        tools = None
    elif reasoning:
        yield from _reasoning(scanner, reasoning, tools, functions, opened)
    if tools:
        yield from _content(scanner, tools, functions)
    else:
        yield from _rest(scanner)


def _reasoning(
    scanner: Scanner,
    marks: ReasoningFormat,
    tools: ToolFormat | None,
    functions: Functions,
    opened: bool,
) -> Scan[None]:
    yield from _opening(scanner, marks, opened)
    calls = tools if tools and tools.in_reasoning else None
    stops = markers(*marks.ends, *(calls.starts if calls else ()))
    while scanner.in_reasoning and (marker := (yield from scanner.until(stops))):
        if calls and marker in calls.starts:
            yield from _calls_in_thoughts(scanner, marks, calls, functions)
        else:
            scanner.drop()
            scanner.section(reasoning=False)


def _opening(scanner: Scanner, marks: ReasoningFormat, opened: bool) -> Scan[None]:
    """The thoughts' start, if they don't have one already, or an end of none."""
    if opened:
        scanner.section(reasoning=True)
    scanner.hold()
    yield from scanner.after_space()
    if (yield from scanner.literal(*marks.starts)):
        yield from scanner.literal(marks.label)
        scanner.drop()
        scanner.section(reasoning=True)
    elif not opened and _are_marks(marks.ends) and (yield from scanner.literal(*marks.ends)):
        scanner.drop()
        scanner.section(reasoning=False)
    scanner.settle()


def _are_marks(texts: Sequence[str]) -> bool:
    """Whether these can't be an answer's first words."""
    return not any(text[0].isalnum() for text in texts)


def _calls_in_thoughts(
    scanner: Scanner, marks: ReasoningFormat, tools: ToolFormat, functions: Functions
) -> Scan[None]:
    """Calls behind a start in thoughts, where nothing follows them; else the thoughts mention them.

    That nothing follows is known at the answer's end: all of it is here then.
    """
    ahead = Ahead(tools, functions, marks.ends)
    # in pieces, as what only mentions a call shows that soon
    for at in range(scanner.at, len(scanner.text), _PIECE_CHARS):
        if ahead(scanner.text[at : at + _PIECE_CHARS]):
            break
    while not ahead.is_over and (yield from scanner.more(ahead)):
        pass
    if not ahead.only_calls(cut=scanner.cut):
        scanner.at += ahead.read_chars
        if ahead.breaks_off:
            scanner.settle_call()
        scanner.settle()
        return
    stops = markers(*marks.ends, *tools.starts)
    yield from tools.read(scanner, functions)
    while marker := (yield from scanner.until(stops)):
        if marker in marks.ends:
            scanner.drop()
        else:
            yield from tools.read(scanner, functions)


def _content(scanner: Scanner, tools: ToolFormat, functions: Functions) -> Scan[None]:
    starts = markers(*tools.starts)
    if tools.bare:
        scanner.hold()
        yield from tools.read(scanner, functions)
        if scanner.calls_made:
            scanner.settle_call()
        scanner.settle()
    while (yield from scanner.until(starts)):
        yield from tools.read(scanner, functions)
        scanner.settle_call()


def _rest(scanner: Scanner) -> Scan[None]:
    """All that comes is content."""
    while True:
        scanner.show(scanner.text[scanner.at :])
        scanner.at = len(scanner.text)
        if scanner.ended:
            return
        yield
