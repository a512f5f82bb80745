"""Triton's responses to one request, as Tokens.

Nearly all messages of a stream are alike but for the token's own four bytes, and what the C++
backend tells of the request's times at the end of each. The rest of each is looked up among those
that were read before, which costs a tenth of reading it.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from server.backend.base import GenerateRequest, Perf, PromptLogProb, Tokens
from server.backend.triton import logits, messages
from server.backend.triton.messages import Response, Tensor
from server.backend.triton.protobuf import MalformedError
from server.backend.triton.tensors import SWAP, wants_generation_logits, wants_log_probs
from server.backend.triton.words import error_of_message
from server.config import ServedModel
from server.errors import InternalError, RequestError

_MOST_KNOWN: Final = 64
_ID: Final = struct.Struct("<i")
_tokens: Final = partial(tuple.__new__, Tokens)
"""Tokens of all fields, without the Python code of the class's own constructor."""
_SIZES: Final = {"i": 4, "f": 4, "q": 8}
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
        self.count = 0
        """Tokens so far, of all sequences."""
        self.last_id = -1
        self.final = False
        self._end_ids = frozenset(id_ for id_ in (request.end_id, *request.stop_ids) if id_ >= 0)
        self._left = [request.max_tokens] * request.sequences if request.sequences > 1 else []
        """Tokens that each of several sequences may still have; none after an end id."""
        self._words = frozenset(request.stop_words)
        self._lengths = frozenset(map(len, self._words))
        self._tails: dict[int, tuple[int, ...]] = {}
        """Of each sequence, so many of its last ids as the longest word has."""
        self._ended_by_word = False

    @property
    def ends(self) -> bool:
        """Whether all tokens have come, so that nothing but the final response can follow."""
        if self.final or self._ended_by_word:
            return True
        if self._request.beams:
            return self.count > 0
        if self._left:
            return not any(self._left)
        return self.count >= self._request.max_tokens or self.last_id in self._end_ids

    def read(self, found: Sequence[bytes], out: list[Tokens]) -> RequestError | None:
        """Put the tokens of responses to `out`.

        Returns what Triton says, or InternalError for what can't be read; `out` then holds what
        came before.
        """
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
                self.last_id = token
                self.count += 1
                if probability:
                    log_probs = _array("f", message[probability : probability + 4])
                    out.append(Tokens((token,), sequence, log_probs))
                else:
                    out.append(_tokens(((token,), sequence, (), (), (), None, False)))
        except RequestError as error:
            return error
        if self._left:
            self._count(out)
        if self._words:
            self._look_for_words(out)
        return None

    def _count(self, read: Sequence[Tokens]) -> None:
        left = self._left
        for ids, sequence, *_ in read:
            if ids and sequence < len(left):
                over = ids[-1] in self._end_ids
                left[sequence] = 0 if over else max(0, left[sequence] - len(ids))

    def _look_for_words(self, read: Sequence[Tokens]) -> None:
        longest = max(self._lengths)
        for ids, sequence, *_ in read:
            tail = (*self._tails.get(sequence, ()), *ids)[-longest:]
            self._tails[sequence] = tail
            if any(tail[-length:] in self._words for length in self._lengths):
                self._end_by_word(sequence)

    def _end_by_word(self, sequence: int) -> None:
        if not self._left:
            self._ended_by_word = True
        elif sequence < len(self._left):
            self._left[sequence] = 0

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
        beams = _beams(message, tensors)
        log_probs = self._log_probs(message, tensors, beams)
        tops = self._tops(message, tensors, beams)
        first = _value(message, tensors, "sequence_index") or 0
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
            self.count += len(ids)
            self.last_id = ids[-1] if ids else self.last_id
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
        rows = _rows(message, tensors.get("output_log_probs"), "f", len(beams))
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
        blocks = _value(message, tensors, "kv_cache_reused_blocks") or 0
        cached = blocks * self._model.tokens_per_block
        found = Perf(
            arrival_ns=_value(message, tensors, "arrival_time_ns") or 0,
            first_scheduled_ns=_value(message, tensors, "first_scheduled_time_ns") or 0,
            first_token_ns=_value(message, tensors, "first_token_time_ns") or 0,
            last_token_ns=_value(message, tensors, "last_token_time_ns") or 0,
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


def _beams(message: bytes, tensors: dict[str, Tensor]) -> list[Sequence[int]]:
    """Token ids, a row per beam; what is beyond `sequence_length` is padding."""
    tensor = tensors["output_ids"]
    count = tensor.shape[-2] if len(tensor.shape) > 1 else 1
    rows = _rows(message, tensor, "i", count)
    lengths = _values(message, tensors.get("sequence_length"), "i")
    if not lengths:
        return rows
    if len(lengths) != len(rows):
        raise MalformedError(f"{len(lengths)} lengths for {len(rows)} sequences")
    return [row[:length] for row, length in zip(rows, lengths, strict=True)]


def _rows(message: bytes, tensor: Tensor | None, typecode: str, count: int) -> list[Any]:
    values = _values(message, tensor, typecode)
    if count < 1 or len(values) % count:
        raise MalformedError(f"{len(values)} values in {count} rows")
    width = len(values) // count
    return [values[n * width : n * width + width] for n in range(count)]


def _value(message: bytes, tensors: dict[str, Tensor], name: str) -> int | None:
    """The one value of a tensor of whole numbers."""
    tensor = tensors.get(name)
    if tensor is None:
        return None
    values = _values(message, tensor, "q" if tensor.datatype in ("INT64", "UINT64") else "i")
    return int(values[0]) if values else None


def _values(message: bytes, tensor: Tensor | None, typecode: str) -> Any:
    if tensor is None:
        return ()
    start, end = tensor.span
    if (end - start) % _SIZES[typecode]:
        raise MalformedError(f"{tensor.name} of {end - start} bytes")
    return _array(typecode, message[start:end])


def _array(typecode: str, raw: bytes) -> Any:
    data: Any = array(typecode, raw)
    if SWAP:
        data.byteswap()
    return data
