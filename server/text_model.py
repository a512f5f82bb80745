"""A served model's text side: requests to token ids and limits, and what its answers end with."""

from __future__ import annotations

import random

from server.backend.base import NO_END_ID, GenerateRequest
from server.config import ServedModel
from server.errors import ContextLengthError, InvalidRequestError
from server.protocol.request import (
    ChatPrompt,
    Prompt,
    Sampling,
    TextPrompt,
    TextRequest,
    TokenPrompt,
)
from server.text.tokenizer import TextTokenizer
from text.errors import MessagesError, NoTemplateError

_SEED_BITS = 64
_GREEDY_BELOW = 1e-5
"""A temperature or `top_p` too near to 0 to be told from it in 32 bits; as in vLLM."""


class TextModel:
    """Tokenizer and chat template of one served model, loaded once.

    Raises UnusableTokenizerError when its folder can't be used.
    """

    def __init__(self, served: ServedModel, *, offload_chars: int) -> None:
        self.served = served
        self.tokenizer = TextTokenizer(served.tokenizer_dir, offload_chars=offload_chars)

    async def requests(self, request: TextRequest, request_id: str) -> list[GenerateRequest]:
        """One request to the engine per prompt, every value explicit.

        Raises InvalidRequestError, ContextLengthError when a prompt leaves no room.
        """
        made = []
        for index, prompt in enumerate(request.prompts):
            ids = await self._ids(prompt, request.prompt_param)
            max_tokens = self._room(request, ids)
            name = f"{request_id}-{index}" if len(request.prompts) > 1 else request_id
            made.append(self._request(request, name, ids, max_tokens))
        return made

    async def _ids(self, prompt: Prompt, param: str) -> list[int]:
        if isinstance(prompt, TokenPrompt):
            for token in prompt.ids:
                if not 0 <= token < self.tokenizer.vocab_size:
                    raise InvalidRequestError(f"token id {token} is not the model's", param=param)
            return list(prompt.ids)
        text = prompt.text if isinstance(prompt, TextPrompt) else self._rendered(prompt)
        if len(text) > self.served.max_seq_len * self.tokenizer.max_token_chars:
            raise self._too_long(f"held {len(text)} characters", param)
        return await self.tokenizer.encode(text, add_special_tokens=prompt.add_special_tokens)

    def _rendered(self, prompt: ChatPrompt) -> str:
        try:
            return self.tokenizer.chat_template.render(
                prompt.messages,
                add_generation_prompt=prompt.add_generation_prompt,
                continue_final_message=prompt.continue_final_message,
                variables=prompt.variables,
            )
        except MessagesError as error:
            other = "use /v1/completions" if isinstance(error, NoTemplateError) else None
            raise InvalidRequestError(error.what, param=error.param, do=other) from error

    def _room(self, request: TextRequest, ids: list[int]) -> int:
        """How many tokens the answer may have: what was asked for, cut to what is left."""
        param = request.prompt_param
        if not ids:
            raise InvalidRequestError("the prompt has no tokens", param=param)
        room = self.served.max_seq_len - len(ids)
        if room < 1:
            raise self._too_long(f"resulted in {len(ids)} tokens", param)
        wanted = request.limits.max_tokens
        return room if wanted is None else min(wanted, room)

    def _too_long(self, what: str, param: str) -> ContextLengthError:
        return ContextLengthError(
            f"This model's maximum context length is {self.served.max_seq_len} tokens. However, "
            f"your {param} {what}. Please reduce the length of the {param}.",
            param=param,
        )

    def _request(
        self, request: TextRequest, request_id: str, ids: list[int], max_tokens: int
    ) -> GenerateRequest:
        sampling, limits = request.sampling, request.limits
        eos_ids = () if limits.ignore_eos else self.tokenizer.eos_ids
        end_id, *more = eos_ids or (NO_END_ID,)
        # The engine holds back its end id alone until `min_tokens`; the answer ends at the others.
        stop_ids = tuple(dict.fromkeys((*more, *limits.stop_token_ids)))
        greedy = _is_greedy(sampling)
        return GenerateRequest(
            request_id=request_id,
            input_ids=ids,
            max_tokens=max_tokens,
            end_id=end_id,
            stop_ids=() if limits.min_tokens else stop_ids,
            temperature=None if greedy else sampling.temperature,
            top_p=1.0 if greedy else sampling.top_p,
            top_k=1 if greedy else sampling.top_k,
            repetition_penalty=sampling.repetition_penalty,
            presence_penalty=sampling.presence_penalty,
            frequency_penalty=sampling.frequency_penalty,
            seed=_seed(sampling.seed),
            min_tokens=min(limits.min_tokens, max_tokens),
            log_probs=request.log_probs,
        )


def _is_greedy(sampling: Sampling) -> bool:
    """`top_p` 0 keeps the likeliest token alone; the engine would take 0 for "off"."""
    return sampling.temperature < _GREEDY_BELOW or sampling.top_p < _GREEDY_BELOW


def _seed(seed: int | None) -> int:
    """A seed as the engine's unsigned number; without one, each request gets its own."""
    return random.getrandbits(_SEED_BITS) if seed is None else seed % (1 << _SEED_BITS)
