"""New tokens and text of one sequence, on their way into a response."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from triton_repo.runtime.llmapi.asked import Asked


@dataclass(slots=True)
class Row:
    """What is new of a sequence; `output` is the LLM API's own record of it."""

    ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    text: str = ""
    finish_reason: str = ""
    output: Any = None
    total_ids: int = 0
    """Ids since the answer began, these among them."""
    total_log_prob: float = 0.0


class Rows:
    """The rows of a request by sequence, and how far each sequence has come."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._rows: dict[int, Row] = {}
        self._known: dict[int, _Known] = {}

    def __bool__(self) -> bool:
        return bool(self._rows)

    @property
    def ended(self) -> bool:
        """Whether every sequence has ended."""
        return bool(self._known) and all(known.ended for known in self._known.values())

    def take(self) -> dict[int, Row]:
        """What is new since the last call."""
        rows, self._rows = self._rows, {}
        return rows

    def gather(self, index: int, output: Any) -> None:
        """Note what is new of sequence `index` by the LLM API's record of it."""
        known = self._known.setdefault(index, _Known())
        if known.ended:
            return
        end, stopped = self._end(output.token_ids, known.ids)
        reason = "stop" if stopped else output.finish_reason or ""
        text = output.text if reason else _before_stop(output.text, self._asked)
        ids = output.token_ids[known.ids : end]
        if not (ids or reason or len(text) > known.characters):
            return
        row = self._rows.setdefault(index, Row())
        row.output, row.finish_reason = output, reason
        row.ids += ids
        row.text += text[known.characters :]
        if self._asked.log_probs:
            chosen = list(map(_log_prob, output.logprobs[known.ids : end], ids))
            row.log_probs += chosen
            known.log_prob += sum(chosen)
        known.ids, known.ended = end, bool(reason)
        known.characters = max(known.characters, len(text))
        row.total_ids, row.total_log_prob = known.ids, known.log_prob

    def _end(self, ids: Sequence[int], known: int) -> tuple[int, bool]:
        """Where the answer ends so far, and whether that is a stop word of several ids."""
        for end in range(known + 1, len(ids) + 1) if self._asked.stop_words else ():
            if any(tuple(ids[max(0, end - len(w)) : end]) == w for w in self._asked.stop_words):
                return end, True
        # ids that stopped the answer may be taken off again
        return max(known, len(ids)), False


@dataclass(slots=True)
class _Known:
    """How much of a sequence has been noted."""

    ids: int = 0
    characters: int = 0
    log_prob: float = 0.0
    ended: bool = False


def _before_stop(text: str, asked: Asked) -> str:
    """The text without an end that may become a stop string."""
    stops = asked.sampling.get("stop", ())
    longest = max((len(stop) for stop in stops), default=1) - 1
    for length in range(min(longest, len(text)), 0, -1):
        if any(stop.startswith(text[-length:]) for stop in stops):
            return text[:-length]
    return text


def _log_prob(entry: Any, token: int) -> float:
    """Of a token: its own among the likeliest, or the one number there is."""
    return float(entry[token].logprob if isinstance(entry, Mapping) else entry)
