"""A tokenizer folder from a GGUF file's fields.

transformers' own conversion takes every `llama` architecture for Llama 2's tokenizer; it gives
SmolLM2 a BOS that it doesn't have and `<|im_start|>` for its end. The fields say what is right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from builder.errors import ModelError
from builder.source.gguf_vocab import Vocabulary, byte_level_bpe, read, sentencepiece_bpe
from builder.source.huggingface import GENERATION_CONFIG, json_bytes

BUILDERS = {"gpt2": byte_level_bpe, "llama": sentencepiece_bpe}
"""`tokenizer.ggml.model` → what builds it."""

END_OF_TURN = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end|>")
"""Tokens that end a turn in the chat templates that use them."""

ROLES = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
"""Name in tokenizer_config.json → word in `tokenizer.ggml.<word>_token_id`."""

_TEMPLATE = "tokenizer.chat_template"


def files(path: Path, fields: Mapping[str, Any]) -> dict[str, Callable[[], bytes]]:
    """tokenizer.json, tokenizer_config.json and generation_config.json, built when called.

    Raises ModelError at once for a tokenizer that we don't know how to build.
    """
    kind = fields.get("tokenizer.ggml.model")
    if kind not in BUILDERS:
        raise ModelError(
            f"{path} has a tokenizer that can't be converted",
            found=repr(kind),
            do=f"known are {', '.join(BUILDERS)}; or convert from the Hugging Face folder",
        )
    vocabulary = read(path, fields)

    @cache
    def tokenizer_json() -> bytes:
        text: str = BUILDERS[kind](vocabulary).to_str(pretty=True)
        return text.encode()

    return {
        "tokenizer.json": tokenizer_json,
        "tokenizer_config.json": partial(_tokenizer_config, vocabulary, fields),
        GENERATION_CONFIG: partial(_generation_config, vocabulary, fields),
    }


def _tokenizer_config(vocabulary: Vocabulary, fields: Mapping[str, Any]) -> bytes:
    config: dict[str, Any] = {
        "add_bos_token": vocabulary.add_bos,
        "add_eos_token": vocabulary.add_eos,
        "clean_up_tokenization_spaces": False,
        "model_max_length": fields.get(f"{fields['general.architecture']}.context_length"),
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    for name, role in ROLES.items():
        if (token := vocabulary.special(role)) is not None:
            config[name] = vocabulary.tokens[token]
    if templates := dict(_templates(fields)):
        config["chat_template"] = (
            templates["default"]
            if list(templates) == ["default"]
            else [{"name": name, "template": text} for name, text in templates.items()]
        )
    return json_bytes(config)


def _templates(fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if _TEMPLATE in fields:
        yield "default", fields[_TEMPLATE]
    for key, text in fields.items():
        if key.startswith(f"{_TEMPLATE}."):
            yield key.removeprefix(f"{_TEMPLATE}."), text


def _generation_config(vocabulary: Vocabulary, fields: Mapping[str, Any]) -> bytes:
    """Every token that ends an answer: the EOS, the end of turn, those that the template uses."""
    ends = [vocabulary.special(role) for role in ("eos", "eot", "eom")]
    template = "".join(text for _, text in _templates(fields))
    ends += [vocabulary.ids.get(token) for token in END_OF_TURN if token in template]
    known = list(dict.fromkeys(end for end in ends if end is not None))
    config = {
        "bos_token_id": vocabulary.special("bos"),
        "eos_token_id": known if len(known) > 1 else next(iter(known), None),
        "pad_token_id": vocabulary.special("padding"),
    }
    return json_bytes({name: value for name, value in config.items() if value is not None})
