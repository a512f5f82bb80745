"""What the endpoint serves: every name that a client may say, and what it stands for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from server.config import ServedModel, ServerConfig
from server.errors import InvalidRequestError, ModelNotFoundError
from server.text_model import TextModel

_OWNER = "trtbuild"
_MAX_SHOWN_CHARS = 100
_OFFLOAD_CHARS = 4096
"""Prompts longer than this are tokenized off the event loop."""
_ELSEWHERE = {
    "embed": "it embeds texts: use /v1/embeddings",
    "generate": "it generates text: use /v1/chat/completions or /v1/completions",
}

Task = Literal["generate", "embed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A model as a client called it: `name` is the client's, `adapter_id` a LoRA adapter's."""

    name: str
    model: TextModel
    served: ServedModel
    adapter_id: int | None = None
    parent: str | None = None
    """The model that an adapter is laid over."""


class Models:
    """The models of a config, their tokenizers loaded.

    Raises UnusableTokenizerError when a model's folder can't be used, ValueError for a name that
    two models have.
    """

    def __init__(self, config: ServerConfig) -> None:
        self.created = int(time.time())
        self._by_name: dict[str, Found] = {}
        for served in config.models:
            model = TextModel(served, offload_chars=_OFFLOAD_CHARS)
            for found in _names(served, model):
                if found.name in self._by_name:
                    raise ValueError(f"two models are called {found.name}")
                self._by_name[found.name] = found
        self.default = next(iter(self._by_name.values()))
        """What is meant where no name is given."""

    def find(self, name: str | None, task: Task = "generate") -> Found:
        """What `name` stands for; None, or nothing, is the default.

        Raises ModelNotFoundError, and InvalidRequestError for a model of another task.
        """
        found = self.named(name) if name else self.default
        if found.served.task != task:
            what = f"The model '{found.name}' can't do this"
            raise InvalidRequestError(what, param="model", do=_ELSEWHERE[found.served.task])
        return found

    def named(self, name: str) -> Found:
        """What `name` stands for, whatever its task. Raises ModelNotFoundError."""
        found = self._by_name.get(name)
        if found is None:
            raise self.unknown(name)
        return found

    def unknown(self, name: str) -> ModelNotFoundError:
        """What a client is told of a name that stands for nothing."""
        shown = name[:_MAX_SHOWN_CHARS]
        return ModelNotFoundError(f"The model '{shown}' does not exist", param="model")

    def __iter__(self) -> Iterator[Found]:
        return iter(self._by_name.values())

    def describe(self, found: Found) -> dict[str, Any]:
        """The entry of GET /v1/models."""
        return {
            "id": found.name,
            "object": "model",
            "created": self.created,
            "owned_by": _OWNER,
            "root": found.parent or found.served.name,
            "parent": found.parent,
            "max_model_len": found.served.max_seq_len,
        }


def _names(served: ServedModel, model: TextModel) -> Iterator[Found]:
    for name in (served.name, *served.aliases):
        yield Found(name=name, model=model, served=served)
    for name, adapter_id in served.adapters.items():
        yield Found(
            name=name, model=model, served=served, adapter_id=adapter_id, parent=served.name
        )
