"""The model's own chat template, rendered as transformers renders it, in a sandbox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from text.errors import MessagesError, NoTemplateError
from text.jinja_template import Message, Template, mark

_END_MARK = mark("continue")


class ChatTemplate:
    """Messages to the prompt text that the model was trained on.

    `source` is one template, or several by name: "tool_use" serves when functions are told of or
    were called, else "default" or the first. `special_tokens` (bos_token, …) are visible to them.
    A model without a template has None; rendering then says so. Raises UnusableFolderError.
    """

    def __init__(
        self, source: str | Mapping[str, str] | None, special_tokens: Mapping[str, str]
    ) -> None:
        named = {"default": source} if isinstance(source, str) else dict(source or {})
        self._templates = {
            name: Template(text, special_tokens) for name, text in named.items() if text
        }

    @property
    def source(self) -> str | None:
        """All of the templates' text; None where there is none."""
        return "\n".join(each.source for each in self._templates.values()) or None

    def mentions(self, name: str) -> bool:
        """Whether a template reads the variable `name`."""
        return any(name in each.variables for each in self._templates.values())

    @property
    def tells_tools(self) -> bool:
        """Whether the template tells of functions itself; else they are told of in its messages."""
        return bool(self._templates) and self._template(with_tools=True).tells_tools

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        variables: Mapping[str, Any] | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
        how_to_call: str | None = None,
        documents: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        """The prompt's text, special tokens and all: encode it without adding any.

        `tools` are functions in OpenAI's form, and `how_to_call` what the model is told of calling
        them; None is the template's own way, or TAGGED_CALLS where it tells of none. With
        `continue_final_message` the text ends inside the last message, for the model to go on.
        Raises MessagesError with the template's own complaint.
        """
        template = self._template(with_tools=bool(tools))
        if not tools and any(message.get("tool_calls") for message in messages):
            knowing = self._template(with_tools=True)
            template = knowing if knowing.serves_without_tools else template
        values = {
            "tools": template.whole(tools) or None,
            "documents": list(documents) or None,
            "add_generation_prompt": add_generation_prompt,
            **(variables or {}),
        }
        known = template.told(messages, tools, how_to_call)
        if continue_final_message:
            known[-1] = _mark_end(known[-1])
        text = template.render(known, values)
        return _cut_at_mark(text) if continue_final_message else text

    def _template(self, *, with_tools: bool) -> Template:
        if not self._templates:
            raise NoTemplateError("this model has no chat template")
        for name in ("tool_use", "default") if with_tools else ("default",):
            if name in self._templates:
                return self._templates[name]
        return next(iter(self._templates.values()))


def _mark_end(message: Message) -> dict[str, Any]:
    return {**message, "content": f"{message['content'] or ''}{_END_MARK} "}


def _cut_at_mark(text: str) -> str:
    before, mark, after = text.rpartition(_END_MARK)
    if not mark:
        raise MessagesError(
            "the final message can't be continued: the chat template doesn't show it as it is",
            param="continue_final_message",
        )
    # A template that trims messages ate the mark's space: it would have eaten the message's too.
    return before if after.startswith(" ") else before.rstrip()
