"""What has been seen of one request so far."""

from __future__ import annotations

from dataclasses import dataclass, field

from server.protocol.request import TextRequest
from server.telemetry.exchange import OK, Exchange


@dataclass(kw_only=True, eq=False)
class Measurement:
    """One request. Times are time.perf_counter's; `outcome` is as an Exchange's.

    `texts` are the answers', where somebody asked for them. `first` and `last` are when a choice's
    first and newest message came. `cache_told` says whether the engine tells what it found in its
    KV cache.
    """

    model: str
    endpoint: str
    exchange: Exchange
    outcome: str = OK
    error: str | None = None
    request: TextRequest | None = None
    prompt_tokens: int = 0
    generated_tokens: int = 0
    reused_tokens: int = 0
    cache_told: bool = False
    engine_queue_seconds: float | None = None
    reasons: list[str] = field(default_factory=list)
    texts: dict[int, str] = field(default_factory=dict)
    first: dict[int, float] = field(default_factory=dict)
    last: dict[int, float] = field(default_factory=dict)

    @property
    def cached_tokens(self) -> int:
        """Of the prompts', at most all of them: the engine's requests may share a prompt."""
        return min(self.reused_tokens, self.prompt_tokens)

    @property
    def ttft_seconds(self) -> float | None:
        """From the arrival to the first token of any choice; None before there is one."""
        return min(self.first.values()) - self.exchange.arrived if self.first else None

    @property
    def queue_seconds(self) -> float | None:
        """In both queues, as far as anybody told."""
        told = [self.exchange.queued_seconds, self.engine_queue_seconds]
        known = [seconds for seconds in told if seconds is not None]
        return sum(known) if known else None

    @property
    def tpot_seconds(self) -> float | None:
        """Between two tokens of a choice, on the average; None where none has two messages."""
        steps = self.generated_tokens - len(self.last)
        return self.between_tokens_seconds / steps if steps > 0 else None

    @property
    def between_tokens_seconds(self) -> float:
        """The sum of all the times between two messages of one choice."""
        return sum(self.last.values()) - sum(self.first.values())
