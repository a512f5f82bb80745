"""What tests need to have answers made without an engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from server.answer import Answer
from server.backend.base import NO_END_ID, GenerateRequest
from server.protocol.request import Limits, Sampling, TextPrompt, TextRequest
from server.text.parser import Parsing
from server.text.tokenizer import TextTokenizer
from server.text_model import Prepared

MANY = 1000


def text_request(*prompts: str, **values: Any) -> TextRequest:
    """A request of no dialect; Sampling's and Limits' fields are given by their own names."""
    parts = {}
    for part, kind in (("sampling", Sampling), ("limits", Limits)):
        names = kind.__dataclass_fields__.keys() & values.keys()
        parts[part] = kind(**{name: values.pop(name) for name in names})
    texts = [TextPrompt(text=text) for text in prompts or ("x",)]
    return TextRequest(
        **{"model": "m", "prompts": texts, "prompt_param": "prompt", **parts, **values}
    )


def prepared(
    ids: Sequence[int] = (0,), *, max_tokens: int = MANY, continues: bool = False, echo: str = ""
) -> Prepared:
    """A prompt that an engine was given."""
    request = GenerateRequest(
        model="m",
        request_id="r",
        input_ids=ids,
        max_tokens=max(max_tokens, 1),
        end_id=NO_END_ID,
        seed=0,
    )
    return Prepared(request=request, max_tokens=max_tokens, continues=continues, echo=echo)


def answer_of(
    tokenizer: TextTokenizer,
    *,
    prompt: Prepared | None = None,
    parsing: Parsing | None = None,
    **values: Any,
) -> Answer:
    """The answer to a request with these values."""
    return Answer(0, tokenizer, text_request(**values), prompt or prepared(), parsing)
