"""What `tokenizer.ggml.pre` means: how text is cut before byte-level BPE, as data.

The patterns are those of the models' published tokenizer.json; each cuts what the one before
left over, and what it matches stays whole. Names: `llama-vocab.cpp` of llama.cpp.
"""

from __future__ import annotations

from dataclasses import dataclass

_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""GPT-2's pattern."""

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_LOWER_END = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
_UPPER_START = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"


def _tiktoken(digits: str) -> str:
    """The pattern of Llama 3 and Qwen2, which differ in how digits are grouped."""
    return (
        rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}"
        rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}"
    )


@dataclass(frozen=True, kw_only=True)
class PreTokenizer:
    """One value of `tokenizer.ggml.pre`.

    `ignore_merges`: a piece that is a token is taken whole; `nfc`: text is normalised first;
    `adds_bos`: whether a BOS is added when the file doesn't say.
    """

    patterns: tuple[str, ...]
    ignore_merges: bool = False
    nfc: bool = False
    adds_bos: bool = False


_LLAMA3 = PreTokenizer(patterns=(_tiktoken(r"\p{N}{1,3}"),), ignore_merges=True, adds_bos=True)
_GPT2 = PreTokenizer(patterns=(_WORDS,))
_DIGITS = PreTokenizer(patterns=(r"\p{N}", _WORDS))

DEFAULT = "default"
"""For a file that doesn't say; the model's own is not known, so it is what llama.cpp does."""

PRETOKENIZERS = {
    DEFAULT: PreTokenizer(
        patterns=(r"[\p{P}$+<=>^~|]+", _WORDS, r"\p{N}+", r"[0-9][0-9][0-9]"),
    ),
    "gpt-2": _GPT2,
    "olmo": _GPT2,
    "smollm": _DIGITS,
    "starcoder": _DIGITS,
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "falcon3": _LLAMA3,
    "qwen2": PreTokenizer(patterns=(_tiktoken(r"\p{N}"),), nfc=True),
    "deepseek-r1-qwen": PreTokenizer(patterns=(_tiktoken(r"\p{N}"),)),
    "tekken": PreTokenizer(
        patterns=(
            rf"{_LOWER_END}|{_UPPER_START}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}",
        ),
        ignore_merges=True,
        adds_bos=True,
    ),
    "gpt-4o": PreTokenizer(
        patterns=(
            rf"{_LOWER_END}{_CONTRACTIONS}?|{_UPPER_START}{_CONTRACTIONS}?|\p{{N}}{{1,3}}"
            rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}",
        ),
    ),
    "deepseek-coder": PreTokenizer(
        patterns=(r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+", r"\p{N}"),
    ),
}
