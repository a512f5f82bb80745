"""Grammars compiled by llguidance for the engine's tokenizer, and their state in one answer."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from numpy.typing import NDArray

from builder.errors import ArtifactError, RequestError
from triton_repo.executor.guide.lark import to_lark
from triton_repo.executor.guide.schema import check_depth

PARAM = "guided_decoding_guide"
_ANY_JSON = '{"type": ["object", "array"]}'
"""TensorRT-LLM's guide `json`: an object or an array, as xgrammar's own JSON grammar."""
MOST_TEXT = {"json_schema": 1 << 16, "regex": 1 << 13, "ebnf_grammar": 1 << 15}
"""Characters of a guide: larger ones, made for it, compile for many seconds."""
_LIMITS = LLParserLimits(max_lexer_states=50_000)
"""A state takes 1 to 2 kB, so that a grammar takes 100 MB at most."""
_REMEMBERED = 64
"""Guides of one engine that are kept."""

KINDS: dict[str, Callable[[str], str]] = {
    "json": lambda text: LLMatcher.grammar_from_json_schema(_ANY_JSON),
    "json_schema": lambda text: LLMatcher.grammar_from_json_schema(text),
    "regex": LLMatcher.grammar_from_regex,
    "ebnf_grammar": lambda text: LLMatcher.grammar_from_lark(to_lark(text)),
}
"""TensorRT-LLM's guide types → llguidance's grammar. `json` takes no text."""


class Guide:
    """The place of one answer in its grammar. Not thread-safe; every sequence has its own."""

    def __init__(self, matcher: LLMatcher, ends: tuple[int, ...]) -> None:
        self._matcher = matcher
        self._ends = ends
        self.finished = False
        """Whether the answer has ended, with one of the model's ends of sequence."""

    def mask(self, logits: NDArray[np.float32]) -> None:
        """Put -inf where a token of `logits` float32[vocab] may not come next, in place.

        Where the grammar is at its end only the ends of sequence are left. Raises RequestError
        when the grammar has turned out too complex.
        """
        packed = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        if self._matcher.is_error():
            raise _refused(self._matcher.get_error())
        allowed = np.unpackbits(packed, count=logits.size, bitorder="little")
        np.copyto(logits, -np.inf, where=allowed == 0)

    def accept(self, token: int) -> None:
        """Note the token that was chosen. Any that the mask forbids ends the guiding."""
        if not self.finished:
            self.finished = not self._matcher.consume_token(token) or token in self._ends

    def fork(self) -> Guide:
        """A copy at the same place, for another answer to the same request."""
        copy = Guide(self._matcher.deep_copy(), self._ends)
        copy.finished = self.finished
        return copy


class Guides:
    """Compiles guides for one engine and remembers the latest. Thread-safe.

    `vocab_size` is the engine's, padding included; `ends` are the model's ends of sequence.
    """

    def __init__(self, tokenizer_dir: Path, vocab_size: int, ends: Sequence[int]) -> None:
        self._ends = tuple(ends)
        self._tokenizer = _tokenizer(tokenizer_dir / "tokenizer.json", vocab_size, self._ends)
        self._compiled: OrderedDict[tuple[str, str], LLMatcher] = OrderedDict()
        self._lock = threading.Lock()

    def knows(self, kind: str, text: str) -> bool:
        """Whether `compile` has the guide at hand, so that it takes no time."""
        return (kind, text) in self._compiled

    def compile(self, kind: str, text: str) -> Guide:
        """A guide of one of KINDS at its start. Takes up to a second; the GIL is free meanwhile.

        Raises RequestError, naming the input, for a kind or text that isn't one.
        """
        if kind not in KINDS:
            raise RequestError(
                f"guided_decoding_guide_type must be one of {', '.join(KINDS)}",
                found=repr(kind),
                param="guided_decoding_guide_type",
            )
        name = (kind, "" if kind == "json" else text)
        with self._lock:
            matcher = self._compiled.get(name)
        if matcher is None:
            matcher = self._compile(*name)
        with self._lock:
            self._compiled[name] = matcher
            self._compiled.move_to_end(name)
            if len(self._compiled) > _REMEMBERED:
                self._compiled.popitem(last=False)
            return Guide(matcher.deep_copy(), self._ends)

    def _compile(self, kind: str, text: str) -> LLMatcher:
        if kind != "json":
            _check_size(kind, text)
        try:
            matcher = LLMatcher(self._tokenizer, KINDS[kind](text), log_level=0, limits=_LIMITS)
        except ValueError as error:
            raise _refused(str(error), kind) from error
        first = matcher.compute_bitmask()
        if matcher.is_error():
            raise _refused(matcher.get_error(), kind)
        if not any(first):
            raise _refused("no text fits it", kind)
        return matcher


def _tokenizer(path: Path, vocab_size: int, ends: tuple[int, ...]) -> LLTokenizer:
    try:
        return LLTokenizer(str(path), n_vocab=vocab_size, eos_token=list(ends) or None)
    except ValueError as error:
        raise ArtifactError(
            "guided decoding can't be set up for this engine",
            found=str(error),
            do="leave guided_decoding_backend out, or build the engine again",
        ) from error


def _check_size(kind: str, text: str) -> None:
    """Raise RequestError for a guide that isn't there or could take the process's stack or time."""
    if not text:
        raise RequestError(f"{PARAM} is missing", do=f"send the {kind}", param=PARAM)
    if len(text) > MOST_TEXT[kind]:
        raise _refused(f"{len(text)} characters, more than {MOST_TEXT[kind]}", kind)
    if kind == "json_schema":
        check_depth(text)


def _refused(why: str, kind: str = "grammar") -> RequestError:
    return RequestError(
        f"{PARAM} is not a {kind} that can be followed",
        found=" ".join(why.split())[:300],
        param=PARAM,
    )
