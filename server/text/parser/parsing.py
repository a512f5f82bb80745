"""One answer's text, split into reasoning, content and calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from server.backend.base import Guide
from server.errors import InvalidRequestError
from server.protocol.request import ChatPrompt, TextRequest, ToolUse
from server.text.parser.choice import ParserChoice
from server.text.parser.guide import WRAPPER, wraps_calls
from server.text.parser.reading import answer
from server.text.parser.thinking import is_held, thinks_first
from server.text.reasoning.table import ReasoningFormat
from server.text.scan.parts import Parts
from server.text.scan.scanner import Scanner, run
from server.text.tools import json_calls
from server.text.tools.format import Functions, Reader, ToolFormat


class AnswerParser(Protocol):
    """Splits one answer's text, however it is cut into pieces. Never raises."""

    @property
    def in_reasoning(self) -> bool:
        """Whether what comes next is reasoning, as far as is known; for counting its tokens."""
        ...

    @property
    def held_chars(self) -> int:
        """How much of the text is held back, at its end."""
        ...

    def feed(self, text: str) -> Parts:
        """What is certain now. Text that may begin a marker is held back."""
        ...

    def flush(self, *, cut: bool = False) -> Parts:
        """The rest, when no more text comes. Of an answer that was `cut` short, a mark or a call
        that has only begun is no text."""
        ...

    def finish_reason(self, reason: str) -> str:
        """`reason`, or "tool_calls" for a "stop" after whole calls that the model chose to make."""
        ...


@dataclass(frozen=True, kw_only=True)
class Parsing:
    """How the answers to one request are read.

    `continued` is the answer's beginning, where the prompt has it already. A `forced` call of one
    function is no choice of the model's. Without `parallel` an answer has one call at most.
    `earlier_ids` are those of the conversation's calls.
    """

    reasoning: ReasoningFormat | None
    tools: ToolFormat | None
    functions: Functions
    continued: str = ""
    forced: bool = False
    parallel: bool = True
    earlier_ids: Sequence[str] = ()

    @property
    def markers(self) -> frozenset[str]:
        """Tokens that the parser must see, though special tokens are not shown."""
        thoughts = self.reasoning.markers if self.reasoning else ()
        calls = (*self.tools.starts, *self.tools.ends) if self.tools else ()
        return frozenset((*thoughts, *calls))

    def new(self, prompt_tail: str) -> AnswerParser:
        """A parser for one answer. `prompt_tail` is the end of the prompt's text, a few dozen
        characters: a template may open the reasoning itself."""
        return _Split(self, opened=self._opened(prompt_tail))

    def _opened(self, tail: str) -> bool:
        if self.reasoning is None:
            return False
        if tail.rstrip().endswith(self.reasoning.starts):
            return True
        last = [
            max(map(self.continued.rfind, texts))
            for texts in (self.reasoning.starts, self.reasoning.ends)
        ]
        return last[0] > last[1]


def parsing_for(parsers: ParserChoice, request: TextRequest) -> Parsing | None:
    """How to read the answers to `request`; None where all of their text is content.

    An answer that is held to a form is content, or calls, behind what is thought first. Raises
    InvalidRequestError where the model's calls can't be told from text.
    """
    prompt, use = request.prompts[0], request.tools
    if not isinstance(prompt, ChatPrompt):
        return None
    functions = _functions(use.tools) if use else {}
    calls = (call for each in prompt.messages for call in each.get("tool_calls") or ())
    earlier = [str(call.get("id")) for call in calls]
    held, reasoning = is_held(request), parsers.reasoning
    if reasoning and held:
        reasoning = reasoning.before_form if thinks_first(parsers, request) else None
    tools = _held(parsers, use, request.guide) if use and held else _tools(parsers, use)
    if not (reasoning or tools):
        return None
    final = prompt.messages[-1] if prompt.continue_final_message else {}
    content = final.get("content")
    return Parsing(
        reasoning=reasoning,
        tools=tools,
        functions=functions,
        continued=content if isinstance(content, str) else "",
        forced=use is not None and use.choice == "named",
        parallel=use is None or use.parallel,
        earlier_ids=earlier,
    )


def _functions(tools: Sequence[Mapping[str, Any]]) -> Functions:
    functions = [tool["function"] for tool in tools]
    return {each["name"]: each.get("parameters") or {} for each in functions}


def _held(parsers: ParserChoice, use: ToolUse, form: Guide | None) -> ToolFormat:
    """What `guide_for` holds the answer to."""
    ids = parsers.tools.ids if parsers.tools else "openai"
    return ToolFormat(name="held", bare=True, read=_held_reader(use, form), ids=ids)


def _held_reader(use: ToolUse, form: Guide | None) -> Reader:
    if use.named is not None:
        return json_calls.named(use.named)
    if use.demanded or form is None:
        return json_calls.demanded
    return json_calls.listed(wrapper=WRAPPER if wraps_calls(form) else None)


def _tools(parsers: ParserChoice, use: ToolUse | None) -> ToolFormat | None:
    if use is None or (parsers.tools_off and parsers.tools_told):
        return None
    if parsers.tools_off:
        raise InvalidRequestError(
            "this model's chat template doesn't tell of functions, and it is served without a "
            "tool parser",
            param="tools",
            do="serve it without --tool-parser none",
        )
    if parsers.tools is None:
        raise InvalidRequestError(
            "this model's chat template doesn't say how it calls functions",
            param="tools",
            do="set tool_choice to 'required' or a function, or serve it with --tool-parser",
        )
    return parsers.tools


class _Split:
    """The scanner of one answer, and the reader that it feeds."""

    def __init__(self, parsing: Parsing, *, opened: bool) -> None:
        self._forced = parsing.forced
        ids = parsing.tools.ids if parsing.tools else "openai"
        self._scanner = Scanner(
            ids,
            most_calls=None if parsing.parallel else 1,
            earlier_ids=parsing.earlier_ids,
        )
        self._reader = answer(
            self._scanner, parsing.reasoning, parsing.tools, parsing.functions, opened=opened
        )
        run(self._reader)

    @property
    def in_reasoning(self) -> bool:
        return self._scanner.in_reasoning

    @property
    def held_chars(self) -> int:
        return self._scanner.held_chars

    def feed(self, text: str) -> Parts:
        self._scanner.add(text)
        run(self._reader)
        return self._scanner.take()

    def flush(self, *, cut: bool = False) -> Parts:
        self._scanner.ended, self._scanner.cut = True, cut
        run(self._reader)
        return self._scanner.take()

    def finish_reason(self, reason: str) -> str:
        if reason != "stop" or self._forced or not self._scanner.called:
            return reason
        return "tool_calls"
