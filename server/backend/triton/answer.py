"""Triton's responses to one request, as Tokens.

Nearly all messages of a stream are alike but for the token's own four bytes, and what the C++
backend tells of the request's times at the end of each. The rest of each is looked up among those
that were read before, which costs a tenth of reading it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import partial
from typing import Final

from server.backend.base import GenerateRequest, Perf, PromptLogProb, Tokens
from server.backend.triton import logits, messages
from server.backend.triton.ends import Ends
from server.backend.triton.messages import Response, Tensor
from server.backend.triton.protobuf import MalformedError
from server.backend.triton.tensors import wants_generation_logits, wants_log_probs
from server.backend.triton.values import array_of, beams_of, rows_of, value_of
from server.backend.triton.words import error_of_message
from server.config import ServedModel
from server.errors import InternalError, RequestError

_MOST_KNOWN: Final = 64
_ID: Final = struct.Struct("<i")
_tokens: Final = partial(tuple.__new__, Tokens)
"""Tokens of all fields, without the Python code of the class's own constructor."""
_VALUE_HEAD_BYTES: Final = 2
"""Before a small tensor's bytes: the field's number, and their size."""
_PERF: Final = frozenset(
    {
        "kv_cache_alloc_new_blocks",
        "kv_cache_reused_blocks",
        "kv_cache_alloc_total_blocks",
        "arrival_time_ns",
        "first_scheduled_time_ns",
        "first_token_time_ns",
        "last_token_time_ns",
        "acceptance_rate",
        "total_accepted_draft_tokens",
        "total_draft_tokens",
    }
)
"""What TensorRT-LLM's backend tells with every response, asked for or not, after all else."""


class Answer:
    """Reads the responses to `request`, in order."""

    def __init__(self, request: GenerateRequest, model: ServedModel) -> None:
        self._request, self._model = request, model
        self._with_log_probs = wants_log_probs(request)
        self._with_logits = wants_generation_logits(request)
        self._known: dict[bytes, int] = {}
        self._token_at = self._log_prob_at = 0
        self._end: int | None = None
        """Where a message's figures of performance begin, from its end."""
        self._prompt: Sequence[PromptLogProb] = ()
        self._prompt_told = request.prompt_log_probs is None
        self._perf: Perf | None = None
        self._perf_told = False
        self.final = False
        self._ends = Ends(request)

    @property
    def ends(self) -> bool:
        """Whether all tokens have come, so that nothing but the final response can follow."""
        return self.final or self._ends.reached

    def read(self, found: Sequence[bytes], out: list[Tokens]) -> RequestError | None:
        """Put the tokens of responses to `out`.

        Returns what Triton says, or InternalError for what can't be read; `out` then holds what
        came before.
        """
        ends = self._ends
        try:
            for message in found:
                at, probability, end = self._token_at, self._log_prob_at, self._end
                if probability:
                    between = message[at + 4 : probability]
                    rest = message[:at] + between + message[probability + 4 : end]
                else:
                    rest = message[:at] + message[at + 4 : end]
                sequence = self._known.get(rest)
                if sequence is None:
                    self._whole(message, out)
                    continue
                (token,) = _ID.unpack_from(message, at)
                ends.last_id = token
                ends.count += 1
                if probability:
                    log_probs = array_of("f", message[probability : probability + 4])
                    out.append(Tokens((token,), sequence, log_probs))
                else:
                    out.append(_tokens(((token,), sequence, (), (), (), None, False)))
        except RequestError as error:
            return error
        if ends.looks:
            ends.see(out)
        return None

    def _whole(self, message: bytes, out: list[Tokens]) -> None:
        try:
            response = messages.stream_response(message)
            if response.error:
                guide = self._request.guide
                raise error_of_message(response.error, guide_param=guide.param if guide else None)
            made = self._tokens(message, response)
        except (MalformedError, IndexError) as error:
            raise InternalError("Triton's answer can't be read", found=str(error)) from error
        self.final = self.final or response.final
        if response.final:
            if not self._prompt_told:
                raise InternalError("Triton gave no logits of the prompt")
            last = made.pop() if made else Tokens(())
            made.append(last._replace(perf=self._perf, final=True))
        else:
            if made and self._perf and not self._perf_told:
                self._perf_told = True
                made[0] = made[0]._replace(perf=self._perf)
            self._learn(message, response, made)
        out += made

    def _tokens(self, message: bytes, response: Response) -> list[Tokens]:
        tensors = response.tensors
        self._read_perf(message, tensors)
        prompt = self._read_prompt(message, tensors)
        if "output_ids" not in tensors:
            return [Tokens((), prompt=prompt)] if prompt else []
        beams = beams_of(message, tensors)
        log_probs = self._log_probs(message, tensors, beams)
        tops = self._tops(message, tensors, beams)
        first = value_of(message, tensors, "sequence_index") or 0
        made: list[Tokens] = []
        for number, ids in enumerate(beams):
            top = tops[number] if tops else []
            made.append(
                Tokens(
                    ids=ids,
                    sequence=first + number,
                    log_probs=[own for own, _ in top] if tops else log_probs[number],
                    top=[likely for _, likely in top],
                    prompt=prompt if not number else (),
                )
            )
            self._ends.count += len(ids)
            if ids:
                self._ends.last_id = ids[-1]
        return [tokens for tokens in made if tokens.ids or tokens.prompt or response.final]

    def _learn(self, message: bytes, response: Response, made: list[Tokens]) -> None:
        """Note what a response with just one token is beside its token."""
        if len(made) != 1 or len(made[0].ids) != 1 or made[0].top or made[0].prompt:
            return
        start, end = response.tensors["output_ids"].span
        at = probability = 0
        if self._with_log_probs:
            probability, stop = response.tensors["output_log_probs"].span
            if stop - probability != 4 or probability < end:
                return
        at = start
        if end - start != 4 or len(self._known) >= _MOST_KNOWN:
            return
        tail = _perf_bytes(message, response.tensors)
        places = (at, probability, -tail or None)
        if places != (self._token_at, self._log_prob_at, self._end):
            self._known.clear()
            self._token_at, self._log_prob_at, self._end = places
        stop = len(message) - tail
        rest = message[:at] + message[at + 4 : stop]
        if probability:
            rest = message[:at] + message[at + 4 : probability] + message[probability + 4 : stop]
        self._known[rest] = made[0].sequence

    def _log_probs(
        self, message: bytes, tensors: dict[str, Tensor], beams: list[Sequence[int]]
    ) -> list[Sequence[float]]:
        if not self._with_log_probs:
            return [()] * len(beams)
        rows = rows_of(message, tensors.get("output_log_probs"), "f", len(beams))
        for row, ids in zip(rows, beams, strict=True):
            if len(row) < len(ids):
                raise InternalError(
                    "Triton gave too few log probabilities",
                    found=f"{len(row)} for {len(ids)} tokens",
                )
        return [row[: len(ids)] for row, ids in zip(rows, beams, strict=True)]

    def _tops(
        self, message: bytes, tensors: dict[str, Tensor], beams: list[Sequence[int]]
    ) -> list[list[logits.Row]]:
        if not self._with_logits or not any(beams):
            return []
        if "generation_logits" not in tensors:
            raise InternalError("Triton gave no logits", do="build the engine to return them")
        return logits.of_beams(
            message,
            tensors["generation_logits"],
            beams,
            top=self._request.top_log_probs,
            vocab=self._model.vocab_size,
        )

    def _read_prompt(self, message: bytes, tensors: dict[str, Tensor]) -> Sequence[PromptLogProb]:
        """The prompt's, when its logits come for the first time."""
        if self._prompt_told or "context_logits" not in tensors:
            return ()
        self._prompt_told = True
        return logits.of_prompt(
            message,
            tensors["context_logits"],
            self._request.input_ids,
            top=self._request.prompt_log_probs or 0,
            vocab_size=self._model.vocab_size,
        )

    def _read_perf(self, message: bytes, tensors: dict[str, Tensor]) -> None:
        """What is told by now; of several sequences, the whole."""
        if "last_token_time_ns" not in tensors:
            return
        blocks = value_of(message, tensors, "kv_cache_reused_blocks") or 0
        cached = blocks * self._model.tokens_per_block
        found = Perf(
            arrival_ns=value_of(message, tensors, "arrival_time_ns") or 0,
            first_scheduled_ns=value_of(message, tensors, "first_scheduled_time_ns") or 0,
            first_token_ns=value_of(message, tensors, "first_token_time_ns") or 0,
            last_token_ns=value_of(message, tensors, "last_token_time_ns") or 0,
            # the last token of a prompt is always computed
            cached_tokens=max(0, min(cached, len(self._request.input_ids) - 1)),
        )
        self._perf = found if self._perf is None else _joined(self._perf, found)


def _joined(one: Perf, other: Perf) -> Perf:
    return Perf(
        arrival_ns=min(one.arrival_ns, other.arrival_ns),
        first_scheduled_ns=min(one.first_scheduled_ns, other.first_scheduled_ns),
        first_token_ns=min(one.first_token_ns, other.first_token_ns),
        last_token_ns=max(one.last_token_ns, other.last_token_ns),
        cached_tokens=max(one.cached_tokens, other.cached_tokens),
    )


def _perf_bytes(message: bytes, tensors: dict[str, Tensor]) -> int:
    """How many bytes of the message's end are figures of performance, if those are all there."""
    start = max(tensor.span[1] for name, tensor in tensors.items() if name not in _PERF)
    spans = [tensor.span for name, tensor in tensors.items() if name in _PERF]
    known = sum(_VALUE_HEAD_BYTES + stop - begin for begin, stop in spans)
    return known if start + known == len(message) else 0
