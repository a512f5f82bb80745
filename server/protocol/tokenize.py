"""/tokenize and /detokenize: vLLM's shapes and, by its `inputs`, TGI's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import msgspec

from server.errors import InvalidRequestError
from server.protocol.openai_chat.body import chat_prompt
from server.protocol.openai_chat.messages import Message
from server.protocol.openai_chat.tools import Tool, checked_tools
from server.protocol.parameters import DETOKENIZE, TOKENIZE
from server.protocol.request import Prompt, TextPrompt
from server.protocol.sse import encode
from server.protocol.validation import decode, require


class TokenizeBody(msgspec.Struct, kw_only=True):
    """The honoured parameters of /tokenize."""

    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = None
    inputs: str | None = None
    tools: list[Tool] | None = None
    documents: list[dict[str, Any]] | None = None
    add_special_tokens: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    return_token_strs: bool | None = None


class DetokenizeBody(msgspec.Struct, kw_only=True):
    """The honoured parameters of /detokenize. Special tokens are shown, as in vLLM."""

    tokens: list[int]
    model: str | None = None
    skip_special_tokens: bool | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizeRequest:
    """What is to be tokenized. `param` is the client's name for it; TGI's, "inputs", asks for
    each token's place in the text."""

    model: str
    prompt: Prompt
    param: str
    token_strings: bool = False


_SOURCES = ("prompt", "messages", "inputs")
_ONLY_MESSAGES = (
    "tools",
    "documents",
    "add_generation_prompt",
    "continue_final_message",
    "chat_template_kwargs",
)
_decode_tokenize = msgspec.json.Decoder(TokenizeBody)
_decode_detokenize = msgspec.json.Decoder(DetokenizeBody)


def parse_tokenize(body: bytes) -> TokenizeRequest:
    """The request in `body`. Raises InvalidRequestError."""
    request = decode(body, _decode_tokenize, TOKENIZE)
    given = [name for name in _SOURCES if getattr(request, name) is not None]
    one = "one of 'prompt', 'messages' and 'inputs' is required, and no more"
    require(len(given) == 1, one, param=given[-1] if given else "prompt")
    (param,) = given
    return TokenizeRequest(
        model=request.model or "",
        prompt=_prompt(request, param),
        param=param,
        token_strings=bool(request.return_token_strs),
    )


def parse_detokenize(body: bytes) -> DetokenizeBody:
    """The request in `body`. Raises InvalidRequestError."""
    return decode(body, _decode_detokenize, DETOKENIZE)


def render_tokens(ids: Sequence[int], max_model_len: int, strings: list[str] | None) -> bytes:
    """vLLM's answer."""
    told = {"count": len(ids), "max_model_len": max_model_len, "tokens": ids}
    return encode({**told, "token_strs": strings})


def render_spans(text: str, spans: Sequence[tuple[int, int, int]]) -> bytes:
    """TGI's answer: ids with the text that each stands for, its place in bytes of UTF-8.

    `spans` are ids with their places in characters.
    """
    places = [0, *accumulate(len(character.encode()) for character in text)]
    return encode(
        [
            {"id": token, "text": text[start:stop], "start": places[start], "stop": places[stop]}
            for token, start, stop in spans
        ]
    )


def render_text(text: str) -> bytes:
    """vLLM's answer to /detokenize, and SGLang's."""
    return encode({"prompt": text, "text": text})


def _prompt(request: TokenizeBody, param: str) -> Prompt:
    add_special_tokens = request.add_special_tokens
    if request.messages is not None:
        return chat_prompt(request, tools=checked_tools(request.tools))
    for name in _ONLY_MESSAGES:
        if getattr(request, name) is not None:
            raise InvalidRequestError(f"'{name}' belongs to 'messages'", param=name)
    text: str = getattr(request, param)
    return TextPrompt(text=text, add_special_tokens=add_special_tokens is not False)
