"""What an answer goes on from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatPrompt:
    """Messages for the model's chat template; `variables` are the template's own,
    `tools` the functions that it tells the model of."""

    messages: Sequence[Mapping[str, Any]]
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    add_special_tokens: bool = False
    variables: Mapping[str, Any] = field(default_factory=dict)
    tools: Sequence[Mapping[str, Any]] = ()

    @property
    def continues(self) -> bool:
        """Whether the answer goes on from the prompt's text; else it is a text of its own."""
        return self.continue_final_message


@dataclass(frozen=True, kw_only=True, slots=True)
class TextPrompt:
    """Plain text to continue."""

    text: str
    add_special_tokens: bool = True
    continues: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenPrompt:
    """Token ids to continue."""

    ids: Sequence[int]
    continues: ClassVar[bool] = True


Prompt = ChatPrompt | TextPrompt | TokenPrompt
