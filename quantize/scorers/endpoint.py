"""A running OpenAI-compatible endpoint as a predictor.

Where the server can echo a prompt with log probabilities (vLLM, and OpenAI's first completions) a
request per sequence gives each token's probability and the likeliest in its place. Elsewhere the
next token after some prefixes is asked for, and only agreement can be had.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from tokenizers import Tokenizer

from builder.errors import RequestError
from quantize.scorers.base import UNKNOWN, Predictions, Tokens

POSITIONS = 16
"""Of a sequence, evenly spread, after which a server that doesn't echo is asked for a token."""

_TIMEOUT_S = 600
_NOT_SO = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.NOT_IMPLEMENTED,
)
"""What servers say to a request of a form that they don't take."""

_TOKEN_ID = "token_id:"
_LOGITS = "an endpoint doesn't give the logits of the whole vocabulary"


@dataclass(frozen=True, kw_only=True)
class _Form:
    """A way to ask: for the prompt's own log probabilities or for a token; with ids or a text."""

    echo: bool = False
    ids: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)


_SHOWN = {"ignore_eos": True, "skip_special_tokens": False}
_FORMS = (
    _Form(echo=True, extra={"return_tokens_as_token_ids": True}),
    _Form(echo=True),
    _Form(extra=_SHOWN),
    _Form(),
    _Form(ids=False, extra={**_SHOWN, "add_special_tokens": False}),
    _Form(ids=False),
)
"""The best first: those after it are for servers that refuse it."""


class _RefusedError(Exception):
    """The server doesn't take a form."""


class EndpointPredictor:
    """The model `model` at `url`, by default the only one there.

    `tokenizer` is the model's own; token ids are of it. Raises RequestError when nobody answers,
    or not as OpenAI's completions do.
    """

    kind = "endpoint"

    def __init__(
        self, url: str, tokenizer: Tokenizer, *, model: str | None = None, key: str | None = None
    ) -> None:
        parts = urlsplit(url)
        base = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._url = base if base.endswith("/v1") else f"{base}/v1"
        self._headers = {"Content-Type": "application/json"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._tokenizer = tokenizer
        self._forms = list(_FORMS)
        self._refusals: list[str] = []
        self.name = model or self._only_model()

    def predictions(self, tokens: Tokens) -> Predictions:
        """What the endpoint says of int64[T] tokens."""
        while self._forms:
            form = self._forms[0]
            try:
                return self._echoed(tokens, form) if form.echo else self._sampled(tokens, form)
            except _RefusedError as refusal:
                self._refusals.append(str(refusal))
                del self._forms[0]
        raise RequestError(f"{self._url} refuses every request", found=self._refusals[-1])

    def _echoed(self, tokens: Tokens, form: _Form) -> Predictions:
        # 1 is the least that all servers generate
        choice = self._complete(tokens, form, {"echo": True, "logprobs": 1, "max_tokens": 1})
        told = choice.get("logprobs") or {}
        each = (told.get("token_logprobs") or [])[: len(tokens)]
        tops = (told.get("top_logprobs") or [])[: len(tokens)]
        if len(each) < len(tokens) or None in each[1:]:
            raise _RefusedError("it answers without log probabilities of the prompt")
        top1 = [self._id(max(top, key=top.__getitem__)) if top else UNKNOWN for top in tops[1:]]
        top1 += [UNKNOWN] * (len(tokens) - 1 - len(top1))
        return Predictions(
            nll=-np.array(each[1:], np.float64),
            top1=np.array(top1, np.int64),
            missing={"kl": _LOGITS},
        )

    def _sampled(self, tokens: Tokens, form: _Form) -> Predictions:
        top1 = np.full(len(tokens) - 1, UNKNOWN)
        for length in np.unique(np.linspace(1, len(tokens) - 1, POSITIONS).round().astype(int)):
            if form.ids or self._survives(tokens[:length]):
                choice = self._complete(tokens[:length], form, {"max_tokens": 1})
                top1[length - 1] = self._id(str(choice.get("text")))
        reason = f"it takes log probabilities of the prompt, but {self._refusals[0]}"
        return Predictions(nll=None, top1=top1, missing={"perplexity": reason, "kl": _LOGITS})

    def _survives(self, tokens: Tokens) -> bool:
        """Whether the text of these tokens is read as these tokens."""
        text = self._text(tokens)
        return bool(self._tokenizer.encode(text, add_special_tokens=False).ids == tokens.tolist())

    def _text(self, tokens: Tokens) -> str:
        text: str = self._tokenizer.decode(tokens.tolist(), skip_special_tokens=False)
        return text

    def _id(self, token: str) -> int:
        """The id of a token as the server names it, UNKNOWN for what several could be."""
        number = token.removeprefix(_TOKEN_ID)
        return int(number) if number != token else self._ids.get(token, UNKNOWN)

    @cached_property
    def _ids(self) -> dict[str, int]:
        """The ids of what tokens add to a text, where that is whole characters, and of no other."""
        # within a text: some tokenizers drop a space at its beginning
        (anchor,) = self._tokenizer.encode("a", add_special_tokens=False).ids[-1:]
        before = self._tokenizer.decode([anchor])
        ids = range(self._tokenizer.get_vocab_size(with_added_tokens=True))
        pairs = [[anchor, each] for each in ids]
        decoded = self._tokenizer.decode_batch(pairs, skip_special_tokens=False)
        texts = [text.removeprefix(before) for text in decoded]
        times = Counter(texts)
        return {
            text: each
            for each, text in zip(ids, texts, strict=True)
            if text and times[text] == 1 and "\ufffd" not in text
        }

    def _complete(self, tokens: Tokens, form: _Form, wanted: dict[str, Any]) -> dict[str, Any]:
        prompt = tokens.tolist() if form.ids else self._text(tokens)
        body = {"model": self.name, "prompt": prompt, "temperature": 0, **wanted, **form.extra}
        choices = self._fetch("completions", body).get("choices")
        if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
            raise RequestError(f"{self._url}/completions doesn't answer as OpenAI's do")
        return choices[0]

    def _only_model(self) -> str:
        models = [str(each.get("id")) for each in self._fetch("models").get("data") or []]
        if len(models) != 1:
            raise RequestError(
                f"{self._url} doesn't serve one model",
                found=", ".join(models) or "none",
                do="name one behind the URL: URL#MODEL",
            )
        return models[0]

    def _fetch(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        url = f"{self._url}/{path}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, self._headers)
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                said = _message(error.read())
            if body is not None and error.code in _NOT_SO:
                raise _RefusedError(f"the server says: {said}") from error
            raise RequestError(f"{url} refuses", found=f"{error.code} {said}") from error
        except OSError as error:
            reason = getattr(error, "reason", error)
            raise RequestError(f"{url} doesn't answer", found=str(reason)) from error
        except ValueError as error:
            raise RequestError(f"{url} doesn't answer in JSON", found=str(error)) from error
        if not isinstance(answer, dict):
            raise RequestError(f"{url} doesn't answer with a JSON object")
        return answer


def _message(body: bytes) -> str:
    """What an error's body says, in one line."""
    text = body.decode(errors="replace")
    try:
        answer = json.loads(text)
        found = answer.get("error", answer)
        text = str(found.get("message", found) if isinstance(found, dict) else found)
    except (ValueError, AttributeError):
        pass
    return " ".join(text.split())[:200]
