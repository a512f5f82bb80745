"""Whether an answer that is held to a form is thought about first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from server.protocol.request import ChatPrompt, TextRequest
from server.text.parser.choice import ParserChoice
from server.text.reasoning.table import NO_REASONING


def is_held(request: TextRequest) -> bool:
    """Whether the answer's content, or its calls, must have a form."""
    return bool(request.guide or (request.tools and request.tools.demanded))


def thinks_first(parsers: ParserChoice, request: TextRequest) -> bool:
    """Whether the form of a held answer begins behind its thoughts, if the model has any.

    Not where the client wants none, where the answer has begun, and of beams, which would each
    have thoughts of their own to go on from.
    """
    prompt = request.prompts[0]
    return bool(
        parsers.thoughts
        and is_held(request)
        and isinstance(prompt, ChatPrompt)
        and not prompt.continue_final_message
        and request.thinking_budget != 0
        and not request.sampling.beams
        and not _unwanted(prompt.variables)
    )


def _unwanted(variables: Mapping[str, Any]) -> bool:
    switches = (variables.get(name) for name in NO_REASONING)
    return variables.get("reasoning_effort") == "none" or any(s is False for s in switches)
