"""Prompts of any kind to token ids, within what the engine can take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from server.config import ServedModel
from server.errors import ContextLengthError, InvalidRequestError
from server.protocol.request import Prompt, TextPrompt, TextRequest, TokenPrompt
from server.text.offload import offload, offload_alone
from server.text.tokenizer import TextTokenizer
from server.text_model.rendering import Renderer
from server.text_model.work import is_much

TAIL_CHARS = 64
"""Of a prompt's text, for parsers whose markers a template may write itself."""
_TAIL_TOKENS = 32
_COUNTED_CHARS, _COUNTED_CHARS_PER_TOKEN = 1024 * 1024, 8


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadPrompt:
    """A prompt's ids, and the end of its text."""

    ids: list[int]
    tail: str


class PromptReader:
    """Renders, encodes and bounds the prompts of one model.

    Errors call a prompt by the request's own name for it, `param`.
    """

    def __init__(self, served: ServedModel, tokenizer: TextTokenizer, renderer: Renderer) -> None:
        self._served, self._tokenizer, self._renderer = served, tokenizer, renderer

    async def read(
        self,
        prompts: Sequence[Prompt],
        *,
        param: str,
        request: TextRequest | None = None,
        keep_tokens: int | None = None,
        bounded: bool = True,
    ) -> list[ReadPrompt]:
        """The prompts' ids; where `keep_tokens` is given, the last of each, so many.

        `request` is what the prompts' answers are asked for by. Raises InvalidRequestError,
        ContextLengthError for what can't fit if `bounded`.
        """
        read = partial(
            self._read, param=param, request=request, keep_tokens=keep_tokens, bounded=bounded
        )
        if not is_much(map(_told, prompts), self._tokenizer.offload_chars):
            return [read(prompt) for prompt in prompts]
        beside = offload if bounded else offload_alone
        return [await beside(read, prompt) for prompt in prompts]

    def room(self, ids: Sequence[int]) -> int:
        """How many tokens may follow these."""
        return self._served.max_seq_len - len(ids)

    @property
    def longest(self) -> int:
        """Tokens of a prompt at most, one being left for its answer."""
        most = self._served.max_seq_len - 1
        return most if self._served.max_input_len is None else min(self._served.max_input_len, most)

    def _read(
        self,
        prompt: Prompt,
        *,
        param: str,
        request: TextRequest | None,
        keep_tokens: int | None,
        bounded: bool,
    ) -> ReadPrompt:
        if isinstance(prompt, TokenPrompt):
            ids = self._checked(prompt.ids, param)
            tail = self._tokenizer.decode(ids[-_TAIL_TOKENS:])
        else:
            tail = text = (
                prompt.text
                if isinstance(prompt, TextPrompt)
                else self._renderer.render(prompt, param, request)
            )
            if not bounded:
                self.check_countable(text, param)
            elif keep_tokens is None:
                self._check_chars(text, param)
            else:  # more can't be kept, and would take long; one token more, as the first is cut
                text = text[-(keep_tokens + 1) * self._tokenizer.max_token_chars :]
            ids = self._tokenizer.encode_here(text, add_special_tokens=prompt.add_special_tokens)
        ids = ids if keep_tokens is None else ids[-keep_tokens:]
        if bounded:
            self._check_length(ids, param)
        return ReadPrompt(ids=ids, tail=tail[-TAIL_CHARS:])

    def check_countable(self, text: str, param: str) -> None:
        """Refuse what is far too long for the model: a text's tokens take 100 times its memory."""
        most = max(_COUNTED_CHARS, _COUNTED_CHARS_PER_TOKEN * self._served.max_seq_len)
        if len(text) > most:
            what = f"more than {most} characters can't be tokenized at once - '{param}'"
            raise InvalidRequestError(what, param=param, do="send them in parts")

    def _check_chars(self, text: str, param: str) -> None:
        """What is too long however it is tokenized isn't."""
        if len(text) > self._served.max_seq_len * self._tokenizer.max_token_chars:
            raise self._too_long(f"held {len(text)} characters", param)

    def _checked(self, ids: Sequence[int], param: str) -> list[int]:
        size = self._served.vocab_size or self._tokenizer.vocab_size
        for token in (min(ids), max(ids)) if ids else ():
            if not 0 <= token < size:
                raise InvalidRequestError(f"token id {token} is not the model's", param=param)
        return list(ids)

    def _check_length(self, ids: Sequence[int], param: str) -> None:
        if not ids:
            raise InvalidRequestError("the prompt has no tokens", param=param)
        if len(ids) >= self._served.max_seq_len:
            raise self._too_long(f"resulted in {len(ids)} tokens", param)
        if len(ids) > self.longest:
            raise ContextLengthError(
                f"This model's prompts have at most {self.longest} tokens. However, your {param} "
                f"resulted in {len(ids)} tokens. Please reduce the length of the {param}.",
                param=param,
            )

    def _too_long(self, what: str, param: str) -> ContextLengthError:
        return ContextLengthError(
            f"This model's maximum context length is {self._served.max_seq_len} tokens. However, "
            f"your {param} {what}. Please reduce the length of the {param}.",
            param=param,
        )


def _told(prompt: Prompt) -> Any:
    """All of a prompt that may become text, or be made tokens or checked."""
    if isinstance(prompt, TextPrompt):
        return prompt.text
    if isinstance(prompt, TokenPrompt):
        return prompt.ids
    return (prompt.messages, prompt.tools, prompt.variables)
