"""What the executor refuses before it queues it: requests that it could never finish."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from builder.errors import RequestError
from triton_repo.executor.request import Request


@dataclass(frozen=True, kw_only=True)
class Admission:
    """The limits that a single request must keep to; `max_total_tokens` is prompt and answer."""

    vocab_size: int
    max_batch_size: int
    max_total_tokens: int
    max_num_tokens: int
    max_beam_width: int
    max_draft_len: int
    chunked_context: bool
    max_logits_bytes: int

    def check(self, request: Request) -> None:
        """Raise RequestError, naming the input, for what can't run."""
        for problem in (*self._prompt(request), *self._tokens(request), *self._drafts(request)):
            raise problem
        for problem in (*self._answers(request), *self._logits(request)):
            raise problem

    def _prompt(self, request: Request) -> Iterator[RequestError]:
        size = len(request.input_ids)
        if not request.input_ids:
            yield RequestError("the prompt is empty", param="input_ids")
            return
        if request.max_tokens < 1:
            yield RequestError(
                "at least one token must be asked for",
                found=str(request.max_tokens),
                param="request_output_len",
            )
        if size >= self.max_total_tokens:
            yield RequestError(
                f"prompt length {size} exceeds the engine's limit: prompt and "
                f"answer together hold {self.max_total_tokens} tokens",
                param="input_ids",
            )
        if size > self.max_num_tokens and not self.chunked_context:
            yield RequestError(
                f"prompt length {size} exceeds max_num_tokens, {self.max_num_tokens}: without "
                "chunked context a prompt is computed in one step",
                do="set enable_chunked_context in the model's parameters",
                param="input_ids",
            )

    def _tokens(self, request: Request) -> Iterator[RequestError]:
        if request.end_id >= self.vocab_size:
            yield RequestError(
                f"end_id must lie below {self.vocab_size}, or be -1",
                found=str(request.end_id),
                param="end_id",
            )
        bad = [token for word in request.bad_words for token in word]
        for name, ids in (
            ("input_ids", request.input_ids),
            ("draft_input_ids", request.draft_ids),
            ("bad_words_list", bad),
        ):
            if ids and not 0 <= min(ids) <= max(ids) < self.vocab_size:
                yield RequestError(
                    f"token ids must lie in [0, {self.vocab_size})",
                    found=str(min(ids) if min(ids) < 0 else max(ids)),
                    param=name,
                )
        bias = request.embedding_bias
        if bias is not None and bias.shape != (self.vocab_size,):
            yield RequestError(
                f"embedding_bias must have a value for each of {self.vocab_size} tokens",
                found=f"shape {[*bias.shape]}",
                param="embedding_bias",
            )

    def _drafts(self, request: Request) -> Iterator[RequestError]:
        count, logits = len(request.draft_ids), request.draft_logits
        if count > self.max_draft_len:
            yield RequestError(
                f"the engine takes at most {self.max_draft_len} draft tokens",
                found=str(count),
                param="draft_input_ids",
            )
        if count and request.beam_width > 1:
            yield RequestError("a beam search takes no draft tokens", param="draft_input_ids")
        if logits is not None and logits.shape != (count, self.vocab_size):
            yield RequestError(
                f"draft_logits must be a row of {self.vocab_size} for each draft token",
                found=f"shape {[*logits.shape]} for {count} tokens",
                param="draft_logits",
            )
        threshold = request.draft_acceptance_threshold
        if threshold is not None and not 0 < threshold <= 1:
            yield RequestError(
                "draft_acceptance_threshold must lie above 0 and not above 1",
                found=f"{threshold:g}",
                param="draft_acceptance_threshold",
            )

    def _logits(self, request: Request) -> Iterator[RequestError]:
        """What is kept until it is sent: float32 rows of the vocabulary's size.

        A streamed answer's leave with its tokens.
        """
        size = len(request.input_ids)
        answer = min(request.max_tokens, self.max_total_tokens - size)
        count = max(request.answer_count, request.beam_width)
        context = size if request.context_logits else 0
        kept = request.generation_logits and not request.streaming
        generation = answer * count if kept else 0
        wanted_bytes = (context + generation) * self.vocab_size * 4
        if wanted_bytes > self.max_logits_bytes:
            name = "return_context_logits" if context else "return_generation_logits"
            yield RequestError(
                f"{name}: a request's logits must not exceed "
                f"{self.max_logits_bytes / 2**20:.0f} MiB",
                found=f"{context + generation} rows of {self.vocab_size}, "
                f"{wanted_bytes / 2**20:.0f} MiB",
                do="shorten the prompt or lower request_output_len",
                param=name,
            )

    def _answers(self, request: Request) -> Iterator[RequestError]:
        count, width = request.answer_count, request.beam_width
        if width > self.max_beam_width:
            yield RequestError(
                f"beam_width must not exceed the engine's max_beam_width, {self.max_beam_width}",
                found=str(width),
                do="build the engine with a larger --max-beam-width",
                param="beam_width",
            )
        most = self.max_batch_size if width == 1 else width
        if not 1 <= count <= most:
            limit = "the engine's max_batch_size" if width == 1 else "beam_width"
            yield RequestError(
                f"num_return_sequences must lie between 1 and {limit}, {most}",
                found=str(count),
                param="num_return_sequences",
            )
