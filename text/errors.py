"""What text can't be made of. Callers give these the shape of their own errors.

TextError                   what was wrong, what was found, what to do
├── UnusableFolderError     the tokenizer folder can't be used at all
└── MessagesError           these messages are no conversation for this model
    └── NoTemplateError     because it has no chat template
"""

from __future__ import annotations


class TextError(ValueError):
    """`what` was wrong, what was `found` instead, what to `do` next."""

    def __init__(self, what: str, *, found: str | None = None, do: str | None = None) -> None:
        self.what, self.found, self.do = what, found, do
        parts = [what, f"found {found}" if found else None, do]
        super().__init__("; ".join(part for part in parts if part))


class UnusableFolderError(TextError):
    """The tokenizer folder can't be used."""


class MessagesError(TextError):
    """The model's chat template has no prompt for these messages; `param` is the field at fault."""

    def __init__(self, what: str, *, param: str = "messages") -> None:
        super().__init__(what)
        self.param = param


class NoTemplateError(MessagesError):
    """The model has no chat template."""
