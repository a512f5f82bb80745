"""Answers put through a parser as a served model's are, in one piece or in several."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from server.protocol.request import CallDelta, ChatPrompt, TextRequest, ToolUse
from server.text.parser import ParserChoice, Parsing, parsing_for
from server.text.scan.parts import Parts

PROPERTIES = {
    "city": {"type": "string"},
    "days": {"type": "integer"},
    "exact": {"type": ["boolean", "null"]},
    "options": {"type": "object"},
}
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"properties": PROPERTIES}}}
    for name in ("weather", "now", "a-b_c")
]
USER = {"role": "user", "content": "Weather?"}


@dataclass
class Heard:
    """What a client puts together from an answer's parts; `calls` are names and arguments."""

    content: str = ""
    reasoning: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    finish_reason: str = ""

    def take(self, parts: Parts) -> None:
        self.content += parts.content
        self.reasoning += parts.reasoning
        for delta in parts.calls:
            self.take_call(delta)

    def take_call(self, delta: CallDelta) -> None:
        if delta.id is not None:
            assert delta.index == len(self.calls)
            self.calls.append((delta.name or "", ""))
            self.ids.append(delta.id)
        name, arguments = self.calls[delta.index]
        self.calls[delta.index] = (name, arguments + delta.arguments)

    def same(self) -> tuple[Any, ...]:
        """All but the ids, which differ each time."""
        return self.content, self.reasoning, self.calls, self.finish_reason


def request(
    *,
    choice: Literal["auto", "required", "named"] | None = "auto",
    named: str | None = None,
    parallel: bool = True,
    tools: Sequence[dict[str, Any]] = TOOLS,
    messages: Sequence[dict[str, Any]] = (USER,),
    **more: Any,
) -> TextRequest:
    """A chat request with tools; without any where `choice` is None."""
    final = messages[-1]["role"] == "assistant"
    prompt = ChatPrompt(messages=messages, continue_final_message=final)
    use = ToolUse(tools=tools, choice=choice, named=named, parallel=parallel) if choice else None
    return TextRequest(model="m", prompts=[prompt], prompt_param="messages", tools=use, **more)


def parsing(parser: str, reasoning: str = "none", **asked: Any) -> Parsing:
    choice = ParserChoice.of(None, (), tool_parser=parser, reasoning_parser=reasoning)
    found = parsing_for(choice, request(**asked))
    assert found is not None
    return found


def heard(how: Parsing, pieces: Iterable[str], *, tail: str = "", cut_short: bool = False) -> Heard:
    """What comes of an answer, in these pieces, to a prompt that ends in `tail`."""
    parser, found = how.new(tail), Heard()
    for piece in pieces:
        found.take(parser.feed(piece))
    found.take(parser.flush(cut=cut_short))
    found.finish_reason = parser.finish_reason("length" if cut_short else "stop")
    return found


def cut(text: str, lengths: Sequence[int]) -> list[str]:
    """The text in pieces of these lengths, over and over."""
    pieces, at, turn = [], 0, 0
    while at < len(text):
        pieces.append(text[at : at + lengths[turn % len(lengths)]])
        at, turn = at + len(pieces[-1]), turn + 1
    return pieces
