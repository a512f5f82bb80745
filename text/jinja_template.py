"""One chat template in Jinja, and what it wants of messages that others don't."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import jinja2
import jinja2.meta

from text.calls_apart import one_by_one, split_content
from text.errors import MessagesError, UnusableFolderError
from text.template_sandbox import Sandbox, render
from text.told_tools import TAGGED_CALLS, as_text, description, with_instructions
from text.tool_arguments import with_arguments

Message = Mapping[str, Any]

_TEMPLATE_FAULTS = (
    jinja2.TemplateError,
    TypeError,
    ValueError,
    ArithmeticError,
    LookupError,
    AttributeError,
    RecursionError,
    MemoryError,
)


def mark(name: str) -> str:
    """A text that no message has in it."""
    return f"\N{SYMBOL FOR END OF TEXT}trtbuild:{name}\N{SYMBOL FOR END OF TEXT}"


_PROBE = mark("probe")
_ASKED = {"role": "user", "content": "?"}
_UNSAID = {"description": "", "parameters": {"type": "object", "properties": {}}}
"""What functions have where OpenAI's form says nothing of it."""


class Template:
    """One template and what it wants of messages."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        environment = Sandbox()
        self.source = source
        self._special_tokens = dict(special_tokens)
        try:
            self.variables = jinja2.meta.find_undeclared_variables(environment.parse(source))
            self._template = environment.from_string(source)
        except (jinja2.TemplateError, RecursionError) as error:
            raise UnusableFolderError("the chat template is broken", found=str(error)) from error
        self._holds_tools = "tools" not in self.variables and self._shows(
            {"role": "system", "content": "", "tools": _PROBE}
        )
        self.tells_tools = self._holds_tools or "tools" in self.variables
        self._shows_calls = "tool_calls" in source
        self._splits_calls = self._shows_calls and self._shows_calls_alone()
        self._takes_one_call = self._shows_calls and self._shows_one_call()
        self._wants_whole_tools = "tools" in self.variables and self._refuses_bare_tools()
        self._reads_thinking = "message.thinking" in source
        self._knows_developer = "developer" in source
        self._wants_parts = self._shows_only_parts()

    def render(self, messages: Sequence[Message], values: Mapping[str, Any]) -> str:
        """The template's text. Raises MessagesError with its own complaint."""
        known = {**values, "messages": [self._known(message) for message in messages]}
        try:
            return self._text(known)
        except _TEMPLATE_FAULTS as error:
            at_fault = values.get("tools") and self._takes({**known, "tools": None})
            what, param = ("functions", "tools") if at_fault else ("messages", "messages")
            raise MessagesError(
                f"the model's chat template refuses these {what}: {error}", param=param
            ) from error

    def whole(self, tools: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The functions with what OpenAI's form may leave out, where the template needs it."""
        return [_whole(tool) for tool in tools] if self._wants_whole_tools else list(tools)

    @cached_property
    def serves_without_tools(self) -> bool:
        """Whether there may be no functions, for which Hermes 2 Pro's has no place."""
        return self._takes({"messages": [_ASKED], "tools": None, "add_generation_prompt": True})

    def told(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], how: str | None
    ) -> list[Message]:
        """The messages with all that the template doesn't say of functions by itself."""
        known, text = list(messages), how or ""
        ours = not self.tells_tools and tools and how is None
        if ours or (not self._shows_calls and (self._holds_tools or not self.tells_tools)):
            known = as_text(known)
        if not self.tells_tools:
            text = description(tools, TAGGED_CALLS if how is None else how)
        elif self._holds_tools and tools:
            known = _holding(known, tools)
        if tools and text:
            known = with_instructions(known, text, system=self._takes_system)
        if self._takes_one_call:
            known = one_by_one(known)
        if self._splits_calls:
            known = [each for one in known for each in split_content(one)]
        return known

    def _known(self, message: Message) -> dict[str, Any]:
        known = dict(with_arguments(message))
        if known["role"] == "developer" and not self._knows_developer:
            known["role"] = "system"
        thoughts = known.get("reasoning_content")
        if self._reads_thinking and thoughts and not (known.get("tool_calls") and known["content"]):
            known["thinking"] = thoughts  # gpt-oss', which refuses it beside calls and content
        if self._wants_parts and isinstance(known.get("content"), str):
            known["content"] = [{"type": "text", "text": known["content"]}]
        return known

    def _shows_only_parts(self) -> bool:
        """Whether text is lost unless it is in a list of parts, as in some vision models'."""
        part = {"type": "text", "text": _PROBE}
        text, parts = ({"role": "user", "content": content} for content in (_PROBE, [part]))
        return not self._shows(text) and self._shows(parts)

    def _shows_calls_alone(self) -> bool:
        """Whether calls are lost unless there is no content, not even an empty one."""
        beside, alone = _calling(""), _calling(None)
        return not self._shows(_ASKED, beside) and self._shows(_ASKED, alone)

    def _shows_one_call(self) -> bool:
        """Whether of a message's calls only one is shown, or more are refused, as in Llama 3's."""
        one, two = (self._shown(_ASKED, _calling("", calls=calls)) for calls in (1, 2))
        return one > 0 and two <= one

    def _refuses_bare_tools(self) -> bool:
        """Whether functions must have a description and parameters, as in gpt-oss's."""
        bare: dict[str, Any] = {"type": "function", "function": {"name": "f"}}
        told, whole = (
            self._takes({"messages": [_ASKED], "tools": [tool], "add_generation_prompt": True})
            for tool in (bare, _whole(bare))
        )
        return whole and not told

    @cached_property
    def _takes_system(self) -> bool:
        """Whether a system message is shown, which some templates refuse and others leave out."""
        messages = [{"role": "system", "content": _PROBE}, {"role": "user", "content": "?"}]
        try:
            return _PROBE in self.render(messages, {"add_generation_prompt": True})
        except MessagesError:
            return False

    def _shows(self, *messages: Message) -> bool:
        """Whether the probe that is somewhere in them is in the text."""
        return self._shown(*messages) > 0

    def _shown(self, *messages: Message) -> int:
        """How often it is."""
        values = {"messages": list(messages), "add_generation_prompt": True}
        try:
            return self._text(values).count(_PROBE)
        except _TEMPLATE_FAULTS:
            return 0

    def _takes(self, values: Mapping[str, Any]) -> bool:
        """Whether these aren't refused."""
        try:
            self._text(values)
        except _TEMPLATE_FAULTS:
            return False
        return True

    def _text(self, values: Mapping[str, Any]) -> str:
        return render(self._template, {**self._special_tokens, **values})


def _calling(content: str | None, *, calls: int = 1) -> Message:
    """A message with calls of the probe."""
    function = {"name": _PROBE, "arguments": "{}"}
    call = {"id": "0" * 9, "type": "function", "function": function}
    return with_arguments({"role": "assistant", "content": content, "tool_calls": [call] * calls})


def _whole(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    function = tool["function"]
    unsaid = {key: value for key, value in _UNSAID.items() if function.get(key) is None}
    return {**tool, "function": {**function, **unsaid}}


def _holding(messages: list[Message], tools: Sequence[Mapping[str, Any]]) -> list[Message]:
    """The conversation with `tools` in its system message, where Phi-4-mini's template looks."""
    functions = [tool.get("function", tool) for tool in tools]
    if messages[0]["role"] not in ("system", "developer"):
        messages = [{"role": "system", "content": ""}, *messages]
    return [{**messages[0], "tools": json.dumps(functions, ensure_ascii=False)}, *messages[1:]]
