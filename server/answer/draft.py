"""What becomes one text event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from server.protocol.request import CallDelta, TextEvent, TokenLogProb
from server.text.parser import Parts


def moved(calls: Sequence[CallDelta], chars: int) -> Sequence[CallDelta]:
    """The calls, told with so many more `chars` of text before theirs."""
    return [replace(call, at=call.at + chars) for call in calls] if chars else calls


class Draft:
    """An event that is being gathered, of one choice."""

    __slots__ = (
        "calls",
        "index",
        "log_probs",
        "prompt_log_probs",
        "prompt_token_ids",
        "reasoning",
        "text",
        "token_ids",
    )

    def __init__(self, index: int) -> None:
        self.index = index
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.calls: list[CallDelta] = []
        self.log_probs: list[TokenLogProb] = []
        self.token_ids: list[int] = []
        self.prompt_log_probs: Sequence[TokenLogProb] = ()
        self.prompt_token_ids: Sequence[int] = ()

    def add(self, parts: Parts, *, reasoning: bool) -> None:
        """What a parser made of new text."""
        if parts.calls:
            self.calls.extend(moved(parts.calls, sum(map(len, self.text))))
        self.text.append(parts.content)
        if reasoning:
            self.reasoning.append(parts.reasoning)

    def event(self, finish_reason: str | None, stopped_by: str | int | None) -> TextEvent | None:
        """The event; None where it would tell nothing."""
        text, reasoning = "".join(self.text), "".join(self.reasoning)
        told = text or reasoning or self.calls or self.log_probs or self.token_ids or finish_reason
        if not (told or self.prompt_log_probs or self.prompt_token_ids):
            return None
        return TextEvent(
            index=self.index,
            text=text,
            reasoning=reasoning,
            calls=self.calls,
            log_probs=self.log_probs,
            token_ids=self.token_ids,
            prompt_log_probs=self.prompt_log_probs,
            prompt_token_ids=self.prompt_token_ids,
            finish_reason=finish_reason,
            stopped_by=stopped_by,
        )
