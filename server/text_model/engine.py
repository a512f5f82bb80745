"""What a request asks of the engine, refused by name where this engine can't do it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from server.backend.base import NO_END_ID, BeamSearch, GenerateRequest, Guide
from server.config import ServedModel
from server.errors import InvalidRequestError
from server.protocol.request import Sampling, TextRequest
from server.text.offload import offload
from server.text.parser import guide_for
from server.text.tokenizer import TextTokenizer
from server.text_model.defaults import SamplingDefaults
from server.text_model.work import is_much

_SEED_BITS = 64
_GREEDY_BELOW = 1e-5
"""A temperature or `top_p` too near to 0 to be told from it in 32 bits; as in vLLM."""
_GUIDE_PARAMS = {"input": "text.format"}
_TOP_PARAMS = {"prompt": "logprobs"}
"""What dialects call a form of the answer, and the number of alternatives, by what they call
their prompt."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """What an answer must be, must not have, and ends with: the ids of words."""

    guide: Guide | None
    bad_words: tuple[tuple[int, ...], ...]
    stop_words: tuple[tuple[int, ...], ...]


class EngineRequests:
    """Makes the engine's requests of one model."""

    def __init__(
        self, served: ServedModel, tokenizer: TextTokenizer, defaults: SamplingDefaults
    ) -> None:
        self._served, self._tokenizer, self._defaults = served, tokenizer, defaults

    def check(self, request: TextRequest) -> None:
        """Raises InvalidRequestError for what can't be honoured, whatever the prompt."""
        if request.sampling.beams:
            self._check_beams(request.best_of or request.n)
        self._check_log_probs(request)
        for token in request.sampling.logit_bias:
            self._check_id(token, "logit_bias")
        for token in request.limits.stop_token_ids:
            self._check_id(token, "stop_token_ids")

    async def held(self, request: TextRequest) -> Held:
        """What holds for the answers to all prompts. Raises InvalidRequestError."""
        use = request.tools
        words = (*request.sampling.bad_words, *request.limits.stop)
        told: list[Any] = [words, request.guide.text if request.guide else ""]
        if use and (use.demanded or request.guide):
            told.append(use.tools)
        if is_much(told, self._tokenizer.offload_chars):
            return await offload(self._held, request)
        return self._held(request)

    def make(
        self,
        request: TextRequest,
        held: Held,
        request_id: str,
        ids: list[int],
        max_tokens: int,
        *,
        adapter_id: int | None,
        trace: Mapping[str, str],
    ) -> GenerateRequest:
        """The request for one prompt, every value explicit; `check` comes before."""
        sampling, limits = request.sampling, request.limits
        sequences = request.best_of or request.n
        temperature, top_p, top_k = self._choice(sampling)
        eos_ids = () if limits.ignore_eos else self._tokenizer.eos_ids
        end_id, *more = eos_ids or (NO_END_ID,)
        # The engine holds back its end id alone until `min_tokens`; the answer ends at the others.
        stop_ids = tuple(dict.fromkeys((*more, *limits.stop_token_ids)))
        penalty = sampling.repetition_penalty
        return GenerateRequest(
            model=self._served.triton_model,
            request_id=request_id,
            input_ids=ids,
            max_tokens=max_tokens,
            end_id=end_id,
            stop_ids=() if limits.min_tokens else stop_ids,
            stop_words=held.stop_words,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            repetition_penalty=self._defaults.repetition_penalty if penalty is None else penalty,
            presence_penalty=sampling.presence_penalty or 0.0,
            frequency_penalty=sampling.frequency_penalty or 0.0,
            seed=_seed(sampling.seed),
            min_tokens=min(limits.min_tokens, max_tokens),
            sequences=1 if sampling.beams else sequences,
            beams=_beams(sampling, sequences),
            bad_words=held.bad_words,
            logit_bias=sampling.logit_bias,
            guide=held.guide,
            adapter_id=adapter_id,
            trace=trace,
            log_probs=request.log_probs is not None or sequences > request.n,
            top_log_probs=request.log_probs or 0,
            prompt_log_probs=prompt_log_probs(request),
        )

    def _choice(self, sampling: Sampling) -> tuple[float | None, float, int]:
        """Temperature (None is greedy), top_p, top_k. `top_p` 0 keeps the likeliest token alone;
        the engine would take 0 for "off"."""
        defaults = self._defaults
        temperature = sampling.temperature
        if temperature is None:
            temperature = defaults.temperature
        top_p = defaults.top_p if sampling.top_p is None else sampling.top_p
        top_k = defaults.top_k if sampling.top_k is None else sampling.top_k
        if temperature < _GREEDY_BELOW or top_p < _GREEDY_BELOW:
            return None, 1.0, 1
        return temperature, top_p, top_k

    def _check_beams(self, width: int) -> None:
        most = self._served.max_beam_width
        if width > most:
            raise InvalidRequestError(
                f"the engine has at most {most} beams",
                param="use_beam_search" if most == 1 else "n",
                found=f"{width}",
                do="build it with a larger --max-beam-width",
            )

    def _check_log_probs(self, request: TextRequest) -> None:
        if request.log_probs and not self._served.generation_logits:
            raise _needs_logits(_TOP_PARAMS.get(request.prompt_param, "top_logprobs"), "generation")
        if prompt_log_probs(request) is not None and not self._served.context_logits:
            asked = request.prompt_log_probs is not None and not request.echo
            raise _needs_logits("prompt_logprobs" if asked else "echo", "context")

    def _check_id(self, token: int, param: str) -> None:
        size = self._served.vocab_size or self._tokenizer.vocab_size
        if not 0 <= token < size:
            what = f"token id {token} is not the model's"
            raise InvalidRequestError(what, param=param, do=f"use 0 to {size - 1}")

    def _held(self, request: TextRequest) -> Held:
        return Held(
            guide=self._guide(request),
            bad_words=self._bad_words(request.sampling.bad_words),
            stop_words=tuple(dict.fromkeys(self._stop_words(request))),
        )

    def _guide(self, request: TextRequest) -> Guide | None:
        guide = guide_for(request)
        if guide is not None and not self._served.guided:
            param = _GUIDE_PARAMS.get(request.prompt_param, "response_format")
            raise InvalidRequestError(
                "the engine can't hold an answer to a form",
                param="tool_choice" if request.tools and request.tools.demanded else param,
                do="make the repository with guided decoding (--guided-decoding-backend xgrammar)",
            )
        return guide

    def _bad_words(self, words: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
        """Each word as it begins a text and as it follows a space."""
        return tuple(dict.fromkeys(ids for word in words for ids in self._spellings(word) if ids))

    def _stop_words(self, request: TextRequest) -> Iterator[tuple[int, ...]]:
        """Stop strings as the model would mostly write them: there the engine ends by itself. Text
        alone tells where an answer ends; so a spelling must be that text, whatever it follows."""
        ends_late = request.limits.min_tokens or request.sampling.beams
        if ends_late or self._served.kind == "llmapi":  # which has words for one sequence alone
            return
        for stop in request.limits.stop:
            for ids in self._spellings(stop):
                if stop in self._tokenizer.decode(
                    ids, skip_special_tokens=request.skip_special_tokens
                ):
                    yield ids

    def _spellings(self, word: str) -> Iterator[tuple[int, ...]]:
        bare = word.lstrip(" ")
        for text in dict.fromkeys((word, bare, f" {bare}")):
            yield tuple(self._tokenizer.encode_here(text, add_special_tokens=False))


def prompt_log_probs(request: TextRequest) -> int | None:
    """How many alternatives are told of the prompt's tokens: for themselves, or with their echo."""
    if request.prompt_log_probs is None and request.echo:
        return request.log_probs
    return request.prompt_log_probs


def _beams(sampling: Sampling, width: int) -> BeamSearch | None:
    if not sampling.beams:
        return None
    return BeamSearch(
        width=width,
        length_penalty=sampling.length_penalty,
        early_stopping=sampling.early_stopping,
    )


def _needs_logits(param: str, phase: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"the engine keeps no logits of its {phase} phase",
        param=param,
        do=f"build it with --gather-logits {phase}, or all",
    )


def _seed(seed: int | None) -> int:
    """A seed as the engine's unsigned number; without one, each request gets its own."""
    return random.getrandbits(_SEED_BITS) if seed is None else seed % (1 << _SEED_BITS)
