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
_OF_THE_ANSWER = {"min_tokens", "end_id", "num_return_sequences"}
"""Inputs that say nothing of one token's logits."""
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

    A draw falls on tokens that lie side by side, in the order of their logits: rounding may lead
    it to a neighbour of the token that it fell on, and to no other.
    """
    for case, got in verdict.doubtful:
        near = [await _is_near(case, got, index, client) for index in _departed(case, got)]
        if near and all(near):
            (verdict.near_ties if case.greedy else verdict.near_draws)[case.kind] += 1
            verdict.right[case.kind] += 1
        else:
            verdict.wrong.append(_described(case, got))
    verdict.doubtful.clear()


def _departed(case: Case, got: Answer) -> list[int]:
    """The sequences that aren't what they should be."""
    expected = case.expected.tokens
    both = expected.keys() | got.tokens.keys()
    return sorted(index for index in both if got.tokens.get(index) != expected.get(index))


async def _is_near(case: Case, got: Answer, index: int, client: TokenClient) -> bool:
    """Whether rounding explains that a sequence left its way where it did."""
    ours, theirs = got.tokens.get(index, []), case.expected.tokens.get(index, [])
    at = _departure(ours, theirs)
    if at is None:
        return False
    logits = await _logits(case, theirs[:at], client)
    if logits is None:
        return False
    came, due = logits[ours[at]], logits[theirs[at]]
    if case.greedy:
        return due - came <= NEAR_TIE
    low, high = sorted((came, due))
    return not any(low + NEAR_TIE < logit < high - NEAR_TIE for logit in logits)


async def _logits(case: Case, answer: list[int], client: TokenClient) -> Sequence[float] | None:
    """The engine's, float32[vocab], for what follows the first tokens of an answer."""
    inputs: dict[str, Any] = {**case.inputs, "return_generation_logits": True, "streaming": True}
    wire = request(
        case.prompt + answer,
        1,
        outputs=("output_ids", "sequence_length", "generation_logits"),
        **{name: inputs[name] for name in inputs if name not in _OF_THE_ANSWER},
    )
    async for response in client.ask(wire):
        if response.error:
            return None
        if logits := response.floats("generation_logits"):
            return logits
    return None


def _departure(ours: Sequence[int], theirs: Sequence[int]) -> int | None:
    """The first place where two answers differ; None where one only is shorter."""
    pairs = enumerate(zip(ours, theirs, strict=False))
    return next((i for i, (a, b) in pairs if a != b), None)


def _described(case: Case, got: Answer) -> str:
    index = next(iter(_departed(case, got)), 0)
    ours, theirs = got.tokens.get(index, []), case.expected.tokens.get(index, [])
    at = _departure(ours, theirs)
    where = f"{len(ours)} tokens, not {len(theirs)}" if at is None else f"token {at}"
    told = "" if at is None else f": {ours[at : at + 4]} for {theirs[at : at + 4]}"
    return f"{case.kind}, prompt of {len(case.prompt)}, sequence {index}: {where}{told}"


__all__ = ["SHOWN", "Verdict", "ask", "settle"]
