"""Where a request's answers are thought about, for how long, and by which tokens that shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from server.errors import ContextLengthError, InvalidRequestError
from server.protocol.request import ChatPrompt, TextRequest
from server.text.parser import ParserChoice, is_held, thinks_first
from server.text.tokenizer import TextTokenizer
from server.thinking import MOST_BLANKS, Thinking

_BUDGET: Final = "thinking_token_budget"
_BLANKS: Final = (" ", "\n", "\n\n")


class Thinkers:
    """Plans the thoughts of one model, whose prompts have at most `longest` tokens."""

    def __init__(self, tokenizer: TextTokenizer, parsers: ParserChoice, longest: int) -> None:
        self._parsers, self._tokenizer, self._longest = parsers, tokenizer, longest
        blanks = (self._ids(text) for text in _BLANKS if parsers.thoughts)
        self._blanks = frozenset(ids[0] for ids in blanks if len(ids) == 1)

    def check(self, request: TextRequest) -> None:
        """Raises InvalidRequestError for a budget that can't be honoured."""
        budget, reasoning = request.thinking_budget, self._parsers.reasoning
        if budget is None:
            return
        if reasoning is None:
            what, do = "the model doesn't think aloud, as far as is known", "leave it out"
        elif budget and self._parsers.thoughts is None:
            what = "no token of the model's ends its thoughts, so that they can't be cut"
            do = "leave it out, or use 0"
        elif budget and request.sampling.beams:
            what, do = "beams can't be told to stop thinking", "sample instead"
        elif budget and _continues(request):
            what, do = "thoughts that have begun have no budget", "leave it out"
        else:
            return
        raise InvalidRequestError(f"{what} - '{_BUDGET}'", param=_BUDGET, do=do)

    def plan(
        self, request: TextRequest, ids: Sequence[int], tail: str, max_tokens: int
    ) -> Thinking | None:
        """How the answers to this prompt are thought about; None where the engine needs no help
        with it. `tail` is the end of the prompt's text. Raises ContextLengthError where the engine
        takes no prompt that ends with the shortest of thoughts."""
        thoughts, tail = self._parsers.thoughts, tail.rstrip()
        if thoughts is None or not self._wanted(request) or tail.endswith(thoughts.end):
            return None
        opened = tail.endswith(thoughts.start)
        end = self._ids(thoughts.end + self._then(request, thoughts.then))
        start = () if opened else self._ids(thoughts.start)
        room = self._longest - len(ids) - len(end) - (len(start) + MOST_BLANKS if start else 0)
        budget = room if request.thinking_budget is None else min(request.thinking_budget, room)
        budget = max(budget, 1 if opened else 0)
        fewest = len(start) + budget + len(end)
        if len(ids) + fewest > self._longest and max_tokens > fewest:
            param = request.prompt_param
            raise ContextLengthError(
                f"This model's prompts have at most {self._longest} tokens, and this one's answer"
                f" is thought about first, which takes {fewest} more. Please reduce the length of"
                f" the {param}.",
                param=param,
            )
        return Thinking(
            start=start,
            end=end,
            budget=budget,
            blanks=self._blanks,
            eos_ids=self._eos_ids(request) if is_held(request) else frozenset(),
        )

    def _wanted(self, request: TextRequest) -> bool:
        if is_held(request):
            return thinks_first(self._parsers, request)
        return request.thinking_budget is not None and isinstance(request.prompts[0], ChatPrompt)

    def _then(self, request: TextRequest, then: str) -> str:
        """Where a model says itself that it answers or calls, it must be left to choose."""
        reasoning = self._parsers.reasoning
        free = request.tools is not None and not is_held(request)
        return reasoning.starts[0] if free and reasoning and reasoning.read else then

    def _eos_ids(self, request: TextRequest) -> frozenset[int]:
        limits = request.limits
        eos_ids = () if limits.ignore_eos else self._tokenizer.eos_ids
        return frozenset(eos_ids) - frozenset(limits.stop_token_ids)

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer.encode_here(text, add_special_tokens=False))


def _continues(request: TextRequest) -> bool:
    prompt = request.prompts[0]
    return isinstance(prompt, ChatPrompt) and prompt.continue_final_message
