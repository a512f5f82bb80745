"""Which parsers a model's answers need: told by its chat template, or forced by name."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import TypeVar

from server.errors import UnknownParserError
from server.text.reasoning.table import REASONING_FORMATS, ReasoningFormat, Thoughts
from server.text.tools.format import ToolFormat
from server.text.tools.table import HERMES, TOOL_FORMATS

AUTO, NONE = "auto", "none"

Format = TypeVar("Format", ToolFormat, ReasoningFormat)


_TOOLS = {name: each for each in TOOL_FORMATS for name in (each.name, *each.peers)}
_REASONING = {name: each for each in REASONING_FORMATS for name in (each.name, *each.peers)}
TOOL_PARSERS = (AUTO, NONE, *_TOOLS)
REASONING_PARSERS = (AUTO, NONE, *_REASONING)
"""What may be asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ParserChoice:
    """The parsers of one model; `tools_off` where calls are wanted as plain text.

    `tools_told` says that its chat template tells of functions itself. `thoughts` are those that
    the model ends with a token, None where it has no such token.
    """

    tools: ToolFormat | None = None
    reasoning: ReasoningFormat | None = None
    tools_off: bool = False
    tools_told: bool = True
    thoughts: Thoughts | None = None

    @classmethod
    def of(
        cls,
        template: str | None,
        vocabulary: Container[str],
        *,
        tools_told: bool = True,
        tool_parser: str = AUTO,
        reasoning_parser: str = AUTO,
    ) -> ParserChoice:
        """What the template's text and the vocabulary's added tokens point to.

        "auto" looks, "none" is none, a name forces that one. A model that isn't told of functions
        by its template is by us, in the way it is known to call, or in Hermes'. Raises
        UnknownParserError.
        """
        reasoning = (
            _reasoning_of(template or "", vocabulary)
            if reasoning_parser == AUTO
            else _forced(reasoning_parser, _REASONING, "reasoning")
        )
        thoughts = reasoning.thoughts if reasoning else None
        return cls(
            tools=_tools_of(template or "", tools_told)
            if tool_parser == AUTO
            else _forced(tool_parser, _TOOLS, "tool"),
            reasoning=reasoning,
            tools_off=tool_parser == NONE,
            tools_told=tools_told,
            thoughts=thoughts if thoughts and thoughts.end in vocabulary else None,
        )


def _forced(name: str, formats: Mapping[str, Format], what: str) -> Format | None:
    if name == NONE:
        return None
    if name not in formats:
        known = ", ".join((AUTO, NONE, *formats))
        raise UnknownParserError(f"there is no {what} parser {name!r}", do=f"use one of {known}")
    return formats[name]


def _tools_of(template: str, tools_told: bool) -> ToolFormat | None:
    found = next((each for each in TOOL_FORMATS if _is_told(each, template)), None)
    return found if tools_told or (found and found.how_to_call) else HERMES


def _is_told(each: ToolFormat, template: str) -> bool:
    told = any(all(text in template for text in row) for row in each.told_by)
    return told and not any(text in template for text in each.not_by)


def _reasoning_of(template: str, vocabulary: Container[str]) -> ReasoningFormat | None:
    for each in REASONING_FORMATS:
        if any(text in template for text in each.told_by):
            return each
    for each in REASONING_FORMATS:
        if template and all(text in vocabulary for text in (*each.starts, *each.ends)):
            return each
    return None
