"""OpenAI's embeddings: bytes to what is asked for, vectors to bytes."""

from __future__ import annotations

import binascii
import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from server.protocol.parameters import ENGINE, HONOURED, METADATA, Fate, Refused
from server.protocol.validation import check_range, decode, require

_MODELS: Final = "the model says whether its embeddings are normalized"

EMBEDDINGS: Mapping[str, Fate] = {
    # OpenAI
    "input": HONOURED,
    "model": HONOURED,
    "encoding_format": HONOURED,
    "dimensions": HONOURED,
    "user": METADATA,
    # vLLM
    "add_special_tokens": HONOURED,
    "truncate_prompt_tokens": HONOURED,
    "request_id": METADATA,
    "messages": Refused(reason="an encoder has no chat template: send texts as 'input'"),
    "priority": Refused(reason=ENGINE, neutral=(0,)),
    "embed_dtype": Refused(reason="embeddings are float32", neutral=("float32",)),
    "endianness": Refused(reason="base64 is little-endian", neutral=("native", "little")),
    "use_activation": Refused(reason=_MODELS),
    "normalize": Refused(reason=_MODELS),  # what earlier releases called it
    "truncation_side": Refused(reason="the first tokens of a text are kept", neutral=("right",)),
    "padding": Refused(reason="nothing is padded", neutral=("do_not_pad",)),
    "cache_salt": Refused(reason=ENGINE),
    "mm_processor_kwargs": Refused(reason="the model reads text only"),
}
"""Every parameter and its fate; see server.protocol.parameters."""

WHOLE_LENGTH: Final = -1
"""`truncate_prompt_tokens` that stands for the model's own limit, as in vLLM."""

Input = str | list[int]


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddingRequest:
    """Texts or token ids to embed, in the order of the answer.

    `dimensions` cuts embeddings, `truncate_tokens` inputs: None is never.
    """

    model: str | None
    inputs: Sequence[Input]
    base64: bool
    dimensions: int | None
    truncate_tokens: int | None
    add_special_tokens: bool


class EmbeddingBody(msgspec.Struct, kw_only=True):
    """The honoured parameters, as they are sent."""

    input: str | list[str | int | list[int]]
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    add_special_tokens: bool | None = None
    truncate_prompt_tokens: int | None = None


_decoder = msgspec.json.Decoder(EmbeddingBody)


def parse(body: bytes) -> EmbeddingRequest:
    """The request in `body`. Raises InvalidRequestError."""
    given = decode(body, _decoder, EMBEDDINGS)
    check_range("dimensions", given.dimensions, 1)
    truncate = given.truncate_prompt_tokens
    if truncate != WHOLE_LENGTH:
        check_range("truncate_prompt_tokens", truncate, 1)
    return EmbeddingRequest(
        model=given.model,
        inputs=_inputs(given.input),
        base64=given.encoding_format == "base64",
        dimensions=given.dimensions,
        truncate_tokens=truncate,
        add_special_tokens=given.add_special_tokens is not False,
    )


def _inputs(given: str | list[str | int | list[int]]) -> list[Input]:
    """One text, many, one's token ids, or many's."""
    require(given != [], "[] is too short - 'input'", param="input")
    if isinstance(given, str):
        inputs: list[Input] = [given]
    elif all(type(each) is int for each in given):
        inputs = [[each for each in given if isinstance(each, int)]]
    else:
        inputs = [each for each in given if not isinstance(each, int)]
        kinds = {type(each) for each in given}
        require(len(kinds) == 1, "texts and ids can't be mixed - 'input'", param="input")
    for index, each in enumerate(inputs):
        what = "an empty text" if isinstance(each, str) else "an empty list of token ids"
        param = place("input", index, len(inputs))
        require(bool(each), f"'{param}' cannot be {what}", param=param)
    return inputs


def place(param: str, index: int, count: int) -> str:
    """What one of `count` inputs is called in an error."""
    return f"{param}[{index}]" if count > 1 else param


def entry(index: int, vector: array[float], *, base64: bool) -> bytes:
    """One embedding of the answer, `vector` in float32: numbers, or their little-endian bytes."""
    value: str | list[float] = vector.tolist()
    if base64:
        if sys.byteorder == "big":
            vector = array("f", vector)
            vector.byteswap()
        value = binascii.b2a_base64(vector.tobytes(), newline=False).decode()
    return msgspec.json.encode({"object": "embedding", "index": index, "embedding": value})


def render(model: str, entries: Iterable[bytes], prompt_tokens: int) -> bytes:
    """The whole answer; `entries` are in the inputs' order."""
    usage = {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens}
    tail = msgspec.json.encode({"model": model, "usage": usage})
    return b'{"object":"list","data":[' + b",".join(entries) + b"]," + tail[1:]
