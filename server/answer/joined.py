"""All of a choice's events as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from server.protocol.request import CallDelta, TextEvent


def joined(events: Sequence[TextEvent]) -> TextEvent:
    """One event with everything of these, of one choice, in order; each call is one delta."""
    first, last = events[0], events[-1]
    return replace(
        last,
        text="".join(event.text for event in events),
        reasoning="".join(event.reasoning for event in events),
        calls=_calls([call for event in events for call in event.calls]),
        log_probs=[token for event in events for token in event.log_probs],
        token_ids=[token for event in events for token in event.token_ids],
        prompt_log_probs=first.prompt_log_probs,
        prompt_token_ids=first.prompt_token_ids,
        pieces=events,
    )


def _calls(deltas: Sequence[CallDelta]) -> list[CallDelta]:
    parts: dict[int, list[CallDelta]] = {}
    for delta in deltas:
        parts.setdefault(delta.index, []).append(delta)
    return [
        replace(own[0], arguments="".join(delta.arguments for delta in own))
        for own in parts.values()
    ]
