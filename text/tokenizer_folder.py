"""A model's tokenizer folder, as it travels with the model: no transformers, no remote code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from text.chat_template import ChatTemplate
from text.errors import UnusableFolderError


class TokenizerFolder:
    """tokenizer.json, with what the files beside it say.

    `special_tokens` maps bos_token, eos_token and the like to their text. `eos_ids` are the ids
    that end an answer: those of generation_config.json first, then tokenizer_config.json's
    eos_token, each once. `pad_id` is the pad token's, or an end's. `bos_id` is the id that the
    tokenizer puts before a text, None where it puts none. Raises UnusableFolderError when the
    folder can't be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tokenizer = _load(path)
        self.config = read_json(path / "tokenizer_config.json")
        self.special_tokens = _special_tokens(self.config)
        self.eos_ids = self._eos_ids(read_json(path / "generation_config.json"))
        pad = self._id("pad_token")
        self.pad_id = pad if pad is not None else self.eos_ids[0] if self.eos_ids else 0
        before = self.tokenizer.encode("", add_special_tokens=True).ids
        self.bos_id: int | None = before[0] if before else None

    def chat_template(self, chosen: str | None = None) -> ChatTemplate:
        """The folder's chat templates; or one for all requests: the one that is called `chosen`
        there, else that file.

        They are chat_template.jinja with the others in additional_chat_templates, else those of
        tokenizer_config.json: a string, or a list of named ones; else a processor's.
        """
        named = self._templates()
        if chosen is None:
            return ChatTemplate(named, self.special_tokens)
        if chosen not in named and not Path(chosen).is_file():
            raise UnusableFolderError(
                f"there is no chat template {chosen!r}",
                found=", ".join(named) or f"none in {self.path}",
                do="name a file, or one of the model's own",
            )
        text = named[chosen] if chosen in named else _text(Path(chosen))
        return ChatTemplate(text, self.special_tokens)

    def _templates(self) -> dict[str, str]:
        """By name; a single one is "default"."""
        main = self.path / "chat_template.jinja"
        files = {"default": main} if main.exists() else {}
        more = self.path / "additional_chat_templates"
        files.update((file.stem, file) for file in sorted(more.glob("*.jinja")))
        if files:
            return {name: _text(file) for name, file in files.items()}
        processor = read_json(self.path / "chat_template.json")
        return _named(self.config.get("chat_template") or processor.get("chat_template"))

    def _id(self, name: str) -> int | None:
        token = self.special_tokens.get(name)
        found: int | None = None if token is None else self.tokenizer.token_to_id(token)
        return found

    def _eos_ids(self, generation_config: dict[str, Any]) -> tuple[int, ...]:
        named = generation_config.get("eos_token_id")
        ids = [named] if isinstance(named, int) else list(named or [])
        return tuple(dict.fromkeys(i for i in (*ids, self._id("eos_token")) if i is not None))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, {} where there is none.

    Raises UnusableFolderError when the file isn't a JSON object.
    """
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnusableFolderError(f"{path} can't be read", found=str(error)) from error
    if not isinstance(content, dict):
        raise UnusableFolderError(f"{path} is not a JSON object")
    return content


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UnusableFolderError(f"{path} can't be read", found=str(error)) from error


def _named(templates: Any) -> dict[str, str]:
    """The templates of a JSON file: none, a text, or a list of such with their names."""
    if isinstance(templates, str):
        return {"default": templates}
    try:
        return {str(entry["name"]): str(entry["template"]) for entry in templates or ()}
    except (TypeError, LookupError) as error:
        raise UnusableFolderError(
            "the chat templates are neither a text nor a list of named ones", found=repr(error)
        ) from error


def _load(folder: Path) -> Tokenizer:
    path = folder / "tokenizer.json"
    if not path.exists():
        raise UnusableFolderError(
            f"{folder} has no tokenizer.json", do="make one with a fast tokenizer's save_pretrained"
        )
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise UnusableFolderError(f"{path} can't be read", found=str(error)) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _special_tokens(config: dict[str, Any]) -> dict[str, str]:
    """bos_token and the like; each is a string or an object with `content`."""
    tokens = {}
    for name, value in config.items():
        if name.endswith("_token"):
            content = value.get("content") if isinstance(value, dict) else value
            if isinstance(content, str):
                tokens[name] = content
    return tokens
