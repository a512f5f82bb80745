"""Whether an answer is the right one, and whether a wrong one is a near tie of two logits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from token_client import TokenClient, request

from soaking.cases import Answer, Case, ask

NEAR_TIE = 1e-3
"""Logits of a float32 engine this close may change places with the company in a batch."""
LOG_PROB_TOLERANCE = 1e-3
SHOWN = 20


@dataclass(kw_only=True)
class Verdict:
    """What was asked and how it went, by kind; what was wrong, in words."""

    asked: Counter[str] = field(default_factory=Counter)
    right: Counter[str] = field(default_factory=Counter)
    cancelled: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    doubtful: list[tuple[Case, Answer]] = field(default_factory=list)
    near_ties: Counter[str] = field(default_factory=Counter)
    near_draws: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def add(self, case: Case, got: Answer, *, cancelled: bool) -> None:
        """Hold an answer against the quiet one; one that was cancelled may be shorter."""
        self.asked[case.kind] += 1
        self.tokens += got.count
        self.cancelled[case.kind] += cancelled
        if got.error:
            self.wrong.append(f"{case.kind}: refused: {got.error}")
        elif not (cancelled or got.over):
            self.wrong.append(f"{case.kind}: ended without a final response")
        elif _same(case, got, cancelled=cancelled):
            self.right[case.kind] += 1
        else:
            self.doubtful.append((case, got))


def _same(case: Case, got: Answer, *, cancelled: bool) -> bool:
    expected = case.expected
    if cancelled:
        return all(
            tokens == expected.tokens.get(index, [])[: len(tokens)]
            for index, tokens in got.tokens.items()
        )
    near = all(
        abs(ours - theirs) <= LOG_PROB_TOLERANCE
        for ours, theirs in zip(got.log_probs, expected.log_probs, strict=False)
    )
    return got.tokens == expected.tokens and near


async def settle(verdict: Verdict, client: TokenClient) -> None:
    """Tell near ties from wrong tokens, by the engine's logits where an answer left its way.

    Of a draw the logits don't tell how near it was: an answer with a seed that leaves its way is
    counted apart, and held against a limit as a whole.
    """
    for case, got in verdict.doubtful:
        if not case.greedy:
            verdict.near_draws[case.kind] += 1
            continue
        gap = await _gap(case, got, client)
        if gap is not None and gap <= NEAR_TIE:
            verdict.near_ties[case.kind] += 1
            verdict.right[case.kind] += 1
        else:
            verdict.wrong.append(_described(case, got, gap))
    verdict.doubtful.clear()


async def _gap(case: Case, got: Answer, client: TokenClient) -> float | None:
    """How far the logit of the token that came lies below that of the one that should have."""
    ours, theirs = got.tokens.get(0, []), case.expected.tokens[0]
    at = _departure(ours, theirs)
    if at is None:
        return None
    inputs: dict[str, Any] = {**case.inputs, "return_generation_logits": True, "streaming": True}
    wire = request(
        case.prompt + theirs[:at],
        1,
        outputs=("output_ids", "sequence_length", "generation_logits"),
        **{name: inputs[name] for name in inputs if name not in ("min_tokens", "end_id")},
    )
    async for response in client.ask(wire):
        if response.error:
            return None
        logits = response.floats("generation_logits")
        if len(logits) > max(ours[at], theirs[at]):
            return logits[theirs[at]] - logits[ours[at]]
    return None


def _departure(ours: Sequence[int], theirs: Sequence[int]) -> int | None:
    """The first place where two answers differ; None where one only is shorter."""
    pairs = enumerate(zip(ours, theirs, strict=False))
    return next((i for i, (a, b) in pairs if a != b), None)


def _described(case: Case, got: Answer, gap: float | None) -> str:
    ours, theirs = got.tokens.get(0, []), case.expected.tokens.get(0, [])
    at = _departure(ours, theirs)
    where = f"{len(ours)} tokens, not {len(theirs)}" if at is None else f"token {at}"
    told = "" if at is None else f": {ours[at : at + 4]} for {theirs[at : at + 4]}"
    known = "" if gap is None else f", {gap:.4f} below the best logit"
    return f"{case.kind}, prompt of {len(case.prompt)}: {where}{told}{known}"


__all__ = ["SHOWN", "Verdict", "ask", "settle"]
