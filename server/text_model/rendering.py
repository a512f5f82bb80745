"""Conversations to a model's prompt text, with all that its template has to know of the answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from server.errors import InvalidRequestError
from server.protocol.parameters import TEMPLATE_VARIABLES
from server.protocol.request import ChatPrompt, TextRequest
from server.text.parser import ParserChoice, is_held, thinks_first, wraps_calls
from server.text.reasoning.table import NO_REASONING
from server.text.tools.table import HERMES
from text.chat_template import ChatTemplate
from text.errors import MessagesError, NoTemplateError
from text.told_tools import LISTED_CALLS, WRAPPED_CALLS

_NAMES: Final = {("input", "reasoning_effort"): "reasoning.effort"}
"""What dialects call a variable, by what they call their prompt, where it isn't its own name."""


class Renderer:
    """Renders the conversations of one model."""

    def __init__(self, template: ChatTemplate, parsers: ParserChoice) -> None:
        self._template, self._parsers = template, parsers

    def render(self, prompt: ChatPrompt, param: str, request: TextRequest | None = None) -> str:
        """The prompt's text; `request` says what its answer is held to, and `param` is the
        request's name for prompts. Raises InvalidRequestError.

        Where nothing is to be thought, templates are told not to ask for it, and what they open is
        closed.
        """
        silent = request is not None and self._is_silent(request)
        variables = self._unthinking(prompt.variables) if silent else prompt.variables
        variables = self._heeded(variables)
        self._check_variables(variables, param)
        try:
            text = self._template.render(
                prompt.messages,
                add_generation_prompt=prompt.add_generation_prompt,
                continue_final_message=prompt.continue_final_message,
                variables=variables,
                tools=prompt.tools,
                how_to_call=self._how_to_call(request),
            )
        except MessagesError as error:
            other = "use /v1/completions" if isinstance(error, NoTemplateError) else None
            raise InvalidRequestError(error.what, param=error.param, do=other) from error
        return self._ready(text, request) if request is not None else text

    def _ready(self, text: str, request: TextRequest) -> str:
        """The text with its thoughts begun, or ended, where its answer wants that."""
        reasoning, held = self._parsers.reasoning, is_held(request)
        if reasoning is None:
            return text
        if self._is_silent(request):
            # who reads a whole answer of channels may find calls in it
            return reasoning.closed(text) if held or not reasoning.read else text
        return reasoning.opened(text) if held else text

    def _is_silent(self, request: TextRequest) -> bool:
        """Whether nothing is thought: a form that can't wait for thoughts holds at once."""
        held = is_held(request)
        return request.thinking_budget == 0 or (held and not thinks_first(self._parsers, request))

    def _heeded(self, variables: Mapping[str, Any]) -> Mapping[str, Any]:
        """An effort becomes one that the model knows.

        Where a template knows only whether to think, any is to think, and none is not.
        """
        effort = variables.get("reasoning_effort")
        if effort is None:
            return variables
        if self._template.mentions("reasoning_effort"):
            reasoning = self._parsers.reasoning
            known = reasoning.efforts.get(effort, effort) if reasoning else effort
            return {**variables, "reasoning_effort": known}
        switches = {
            name: off if effort == "none" else not off
            for name, off in NO_REASONING.items()
            if self._template.mentions(name)
        }
        others = {name: value for name, value in variables.items() if name != "reasoning_effort"}
        return {**switches, **others} if switches else variables

    def _check_variables(self, variables: Mapping[str, Any], param: str) -> None:
        """The template must heed what it is told, but for not to think where it can't."""
        for name, value in variables.items():
            if self._template.mentions(name) or NO_REASONING.get(name) is value:
                continue
            own = name in TEMPLATE_VARIABLES
            shown = _NAMES.get((param, name), name) if own else f"chat_template_kwargs.{name}"
            what = f"the model's chat template has no place for '{shown}'"
            raise InvalidRequestError(what, param=shown, do="leave it out")

    def _unthinking(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """What the request says of thinking holds all the same."""
        if NO_REASONING.keys() & variables.keys():
            return dict(variables)
        mentioned = {k: v for k, v in NO_REASONING.items() if self._template.mentions(k)}
        return {**variables, **mentioned}

    def _how_to_call(self, request: TextRequest | None) -> str | None:
        if request is not None and request.tools and request.guide and not request.tools.demanded:
            return WRAPPED_CALLS if wraps_calls(request.guide) else LISTED_CALLS
        tools = self._parsers.tools
        if self._parsers.tools_told or tools is HERMES:
            return None
        return tools.how_to_call if tools else ""
