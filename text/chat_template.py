"""The model's own chat template, rendered as transformers renders it, in a sandbox."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from text.errors import MessagesError, NoTemplateError, UnusableFolderError

Message = Mapping[str, Any]

_TEMPLATE_FAULTS = (
    jinja2.TemplateError,
    TypeError,
    ValueError,
    ArithmeticError,
    LookupError,
    AttributeError,
    RecursionError,
)

_END_MARK = "\N{SYMBOL FOR END OF TEXT}trtbuild:continue\N{SYMBOL FOR END OF TEXT}"


class ChatTemplate:
    """Messages to the prompt text that the model was trained on.

    `special_tokens` (bos_token, …) are visible to the template. A model without a template has
    `source` None; rendering then says so.
    """

    def __init__(self, source: str | None, special_tokens: Mapping[str, str]) -> None:
        self._special_tokens = dict(special_tokens)
        self._knows_developer = source is not None and "developer" in source
        try:
            self._template = None if source is None else _environment().from_string(source)
        except jinja2.TemplateError as error:
            raise UnusableFolderError("the chat template is broken", found=str(error)) from error

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt's text, special tokens and all: encode it without adding any.

        With `continue_final_message` the text ends inside the last message, for the model to
        go on. Raises MessagesError with the template's own complaint.
        """
        template = self._template
        if template is None:
            raise NoTemplateError("this model has no chat template")
        values: dict[str, Any] = {"tools": None, "documents": None, **self._special_tokens}
        values.update(variables or {})
        known = [self._known_role(message) for message in messages]
        if continue_final_message:
            known[-1] = _mark_end(known[-1])
        values.update(messages=known, add_generation_prompt=add_generation_prompt)
        text = _render(template, values)
        return _cut_at_mark(text) if continue_final_message else text

    def _known_role(self, message: Message) -> dict[str, Any]:
        known = dict(message)
        if known["role"] == "developer" and not self._knows_developer:
            known["role"] = "system"
        return known


def _render(template: jinja2.Template, values: dict[str, Any]) -> str:
    try:
        return template.render(values)
    except _TEMPLATE_FAULTS as error:
        raise MessagesError(f"the model's chat template refuses these messages: {error}") from error


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


class _GenerationBlock(jinja2.ext.Extension):
    """`{% generation %}…{% endgeneration %}`, which marks training targets: its content as is."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own declaration

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        """The block's body, without the block."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes for HTML, which models were not trained on."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


def _mark_end(message: Message) -> dict[str, Any]:
    return {**message, "content": f"{message['content']}{_END_MARK} "}


def _cut_at_mark(text: str) -> str:
    before, mark, after = text.rpartition(_END_MARK)
    if not mark:
        raise MessagesError(
            "the final message can't be continued: the chat template doesn't show it as it is",
            param="continue_final_message",
        )
    # A template that trims messages ate the mark's space: it would have eaten the message's too.
    return before if after.startswith(" ") else before.rstrip()
