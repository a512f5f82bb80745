"""What is known of a request only at its end: for the metrics, the access log and the trace."""

from __future__ import annotations

import time
from typing import Any

from server.telemetry import genai
from server.telemetry import instruments as the
from server.telemetry.exchange import CANCELLED, OK, milliseconds
from server.telemetry.measurement import Measurement
from server.telemetry.recorder import asked
from server.telemetry.tally import Tally


def count(tally: Tally, seen: Measurement) -> None:
    """Into the metrics."""
    model, outcome = seen.model, seen.outcome
    tally.add(the.REQUESTS, model, seen.endpoint, outcome)
    if outcome != OK:
        tally.add(the.FINISHED, model, "abort" if outcome == CANCELLED else "error")
        if outcome != CANCELLED:
            tally.add(the.ERRORS, model, seen.endpoint, seen.error or outcome)
    tally.add(the.GENERATED_TOKENS, model, amount=seen.generated_tokens)
    tally.distribution(the.ITL, model).sum += seen.between_tokens_seconds
    tally.add(the.CACHED_TOKENS, model, amount=seen.cached_tokens)
    if seen.cache_told:
        tally.add(the.LOOKED_UP_TOKENS, model, amount=seen.prompt_tokens)
    if (queue := seen.queue_seconds) is not None:
        tally.distribution(the.QUEUE, model).observe(queue)
    if outcome == OK:
        _count_answered(tally, seen)


def tell(seen: Measurement) -> None:
    """To the exchange, for its line in the access log, and to its trace."""
    exchange, request = seen.exchange, seen.request
    exchange.outcome, exchange.error = seen.outcome, seen.error
    exchange.facts |= _facts(seen)
    if exchange.keeps_prompts:
        exchange.recorded = _recorded(seen)
    attributes = _attributes(seen) if exchange.trace.recording else {}
    if exchange.keeps_content and request:
        asked, said = genai.spoken(request, seen.texts)
        exchange.facts |= {"prompt": asked, "answer": said}
        attributes |= genai.content(asked, said)
    exchange.trace.generated(attributes, error=exchange.error_type)


def _count_answered(tally: Tally, seen: Measurement) -> None:
    model = seen.model
    seconds = time.perf_counter() - seen.exchange.arrived
    tally.distribution(the.E2E, model).observe(seconds)
    tally.distribution(the.REQUEST_PROMPT, model).observe(seen.prompt_tokens)
    tally.distribution(the.REQUEST_GENERATED, model).observe(seen.generated_tokens)
    if (tpot := seen.tpot_seconds) is not None:
        tally.distribution(the.TPOT, model).observe(tpot)


def _facts(seen: Measurement) -> dict[str, Any]:
    reasons = seen.reasons
    return {
        "model": seen.model,
        "stream": bool(seen.request and seen.request.stream),
        "prompt_tokens": seen.prompt_tokens,
        "cached_tokens": seen.cached_tokens,
        "completion_tokens": seen.generated_tokens,
        "queue_ms": milliseconds(seen.queue_seconds),
        "ttft_ms": milliseconds(seen.ttft_seconds),
        "finish_reason": reasons[0] if len(reasons) == 1 else reasons or None,
    }


def _recorded(seen: Measurement) -> dict[str, Any]:
    found: dict[str, Any] = {"tpot_ms": milliseconds(seen.tpot_seconds)}
    return {**found, "asked": asked(seen.request)} if seen.request else found


def _attributes(seen: Measurement) -> genai.Attributes:
    request = seen.request
    answered = genai.answered(
        model=seen.model,
        reasons=seen.reasons,
        prompt_tokens=seen.prompt_tokens,
        cached_tokens=seen.cached_tokens,
        completion_tokens=seen.generated_tokens,
        ttft_seconds=seen.ttft_seconds if request and request.stream else None,
    )
    return {**(genai.asked(request) if request else {}), **answered}
