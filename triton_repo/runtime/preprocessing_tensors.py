"""What `preprocessing` gives the engine: prompts as padded ids, words as tables, weights as a bias.

Copied beside the model, so it stands alone with numpy, tokenizers and the room `text`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from text.conversation import parse
from text.errors import MessagesError
from text.tokenizer_folder import TokenizerFolder, read_json

Array = npt.NDArray[Any]
Inputs = Mapping[str, Array]


class Prompt(NamedTuple):
    """One row's text; `special` lets the tokenizer put its special tokens around it."""

    text: str
    special: bool


class Preprocessor:
    """The model's work without Triton: names and shapes are those of `config.pbtxt`.

    Raises UnusableFolderError when the tokenizer can't be used. Requests that can't be honoured are
    ValueErrors that begin with the input's name.
    """

    def __init__(
        self, tokenizer_dir: Path, engine_dir: Path | None, *, add_special_tokens: bool
    ) -> None:
        folder = TokenizerFolder(tokenizer_dir)
        self._tokenizer = folder.tokenizer
        self._template = folder.chat_template()
        self._add_special_tokens = add_special_tokens
        self._bos, self._eos, self._pad = folder.bos_id, folder.eos_ids, folder.pad_id
        config = read_json(engine_dir / "config.json") if engine_dir else {}
        self._vocab_size = _logits_width(config) or self._tokenizer.get_vocab_size()
        self._max_seq_len: int | None = config.get("build_config", {}).get("max_seq_len")

    def prompts(self, inputs: Inputs) -> list[Prompt]:
        """The text of each row: QUERY as it is, or MESSAGES in the model's chat template."""
        if ("QUERY" in inputs) == ("MESSAGES" in inputs):
            both = "QUERY" in inputs
            raise ValueError(f"QUERY: {'not both' if both else 'one'} of it and MESSAGES is wanted")
        if "QUERY" in inputs:
            special = self._add_special_tokens
            return [Prompt(row[0], special) for row in _texts("QUERY", inputs["QUERY"])]
        try:
            texts = [
                self._template.render(parse(row[0]))
                for row in _texts("MESSAGES", inputs["MESSAGES"])
            ]
            for text in texts:
                text.encode()
        except MessagesError as error:
            raise ValueError(f"MESSAGES: {error}") from error
        except UnicodeEncodeError:
            # JSON can escape what no text can hold
            raise ValueError("MESSAGES: half of a surrogate pair is no character") from None
        return [Prompt(text, special=False) for text in texts]

    def encode(self, requests: Sequence[Sequence[Prompt]]) -> list[list[list[int]]]:
        """Every request's prompts as ids, those of all requests in parallel."""
        ids: dict[Prompt, list[int]] = {}
        for special in (True, False):
            wanted = list({p: None for rows in requests for p in rows if p.special is special})
            texts = [prompt.text for prompt in wanted]
            encoded = self._tokenizer.encode_batch_fast(texts, add_special_tokens=special)
            ids |= {p: self._one_bos(p, e.ids) for p, e in zip(wanted, encoded, strict=True)}
        return [[ids[prompt] for prompt in rows] for rows in requests]

    def outputs(self, prompts: Sequence[list[int]], inputs: Inputs) -> dict[str, Array]:
        """The output tensors of one request of `len(prompts)` rows."""
        rows = len(prompts)
        lengths = np.array([[len(ids)] for ids in prompts], np.int32)
        end = _column(inputs, "END_ID", self._eos[0] if self._eos else -1, rows)
        pad = _column(inputs, "PAD_ID", self._pad, rows)
        # who sets an end of their own (-1 for none) means that one alone
        more_ends = () if "END_ID" in inputs else self._eos[1:]
        ids = _padded(prompts, pad)
        return {
            "INPUT_ID": ids,
            "REQUEST_INPUT_LEN": lengths,
            "DECODER_INPUT_ID": np.empty((rows, 0), np.int32),
            "REQUEST_DECODER_INPUT_LEN": np.zeros((rows, 1), np.int32),
            "BAD_WORDS_IDS": self._words(inputs, "BAD_WORDS_DICT", rows),
            "STOP_WORDS_IDS": self._words(inputs, "STOP_WORDS_DICT", rows, more_ends),
            "EMBEDDING_BIAS": self._bias(inputs, rows),
            "REQUEST_OUTPUT_LEN": self._limits(inputs, lengths),
            "OUT_END_ID": end,
            "OUT_PAD_ID": pad,
            "OUT_PROMPT_TABLE_EXTRA_IDS": _extra_ids(inputs, ids),
        }

    def _one_bos(self, prompt: Prompt, ids: list[int]) -> list[int]:
        """Without the BOS that the tokenizer put before a prompt that brings its own."""
        twice = prompt.special and self._bos is not None and ids[:2] == [self._bos] * 2
        return ids[1:] if twice else ids

    def _limits(self, inputs: Inputs, lengths: Array) -> Array:
        """How many tokens each answer may have: what was asked for, cut to what the engine has."""
        wanted = inputs["REQUEST_OUTPUT_LEN"].astype(np.int32)
        if not lengths.all():
            raise ValueError("QUERY: the prompt has no tokens")
        if self._max_seq_len is None:
            return wanted
        longest = int(lengths.max())
        if longest >= self._max_seq_len:
            raise ValueError(
                f"QUERY: {longest} tokens leave no room for an answer in the engine's "
                f"{self._max_seq_len}"
            )
        return np.minimum(wanted, self._max_seq_len - lengths).astype(np.int32)

    def _words(self, inputs: Inputs, name: str, rows: int, single_ids: Sequence[int] = ()) -> Array:
        """The word table [rows, 2, width]: ids, and below them each word's exclusive end.

        The ends are padded with -1, the ids with 0; `single_ids` are words of one token each.
        """
        words = _texts(name, inputs[name]) if name in inputs else [[]] * rows
        if len(words) != rows:
            raise ValueError(f"{name}: {len(words)} rows for {rows} prompts")
        lists = [[*self._encoded(row), *([i] for i in single_ids)] for row in words]
        width = max((sum(map(len, row)) for row in lists), default=0)
        table = np.zeros((rows, 2, width), np.int32)
        table[:, 1] = -1
        for i, row in enumerate(lists):
            flat = [token for word in row for token in word]
            table[i, 0, : len(flat)] = flat
            table[i, 1, : len(row)] = np.cumsum([len(word) for word in row])
        return table

    def _encoded(self, words: Iterable[str]) -> list[list[int]]:
        encoded = (self._tokenizer.encode(word, add_special_tokens=False).ids for word in words)
        return [ids for ids in encoded if ids]

    def _bias(self, inputs: Inputs, rows: int) -> Array:
        """[rows, vocabulary] where words are given, else [rows, 0]: nothing to add.

        A word's weight goes to each of its tokens.
        """
        if "EMBEDDING_BIAS_WORDS" not in inputs:
            return np.empty((rows, 0), np.float32)
        words = _texts("EMBEDDING_BIAS_WORDS", inputs["EMBEDDING_BIAS_WORDS"])
        weights = inputs.get("EMBEDDING_BIAS_WEIGHTS", np.empty((0, 0), np.float32))
        if weights.shape != (rows, len(words[0]) if words else 0) or len(words) != rows:
            raise ValueError("EMBEDDING_BIAS_WEIGHTS: must have one weight for each word")
        bias = np.zeros((rows, self._vocab_size), np.float32)
        for i, row in enumerate(words):
            for word, weight in zip(row, weights[i], strict=True):
                ids = self._tokenizer.encode(word, add_special_tokens=False).ids
                if max(ids, default=0) >= self._vocab_size:
                    raise ValueError(
                        f"EMBEDDING_BIAS_WORDS: {word!r} has tokens beyond the engine's vocabulary"
                    )
                bias[i, ids] += weight
        return bias


def _texts(name: str, array: Array) -> list[list[str]]:
    """A tensor of bytes [rows, n] as text. Raises ValueError where it isn't UTF-8."""
    try:
        return [[text.decode() for text in row] for row in array]
    except UnicodeDecodeError:
        raise ValueError(f"{name}: not UTF-8") from None


def _column(inputs: Inputs, name: str, default: int, rows: int) -> Array:
    if name in inputs:
        return inputs[name].astype(np.int32)
    return np.full((rows, 1), default, np.int32)


def _padded(prompts: Sequence[list[int]], pad: Array) -> Array:
    ids = np.repeat(pad, max(map(len, prompts)), axis=1)
    for i, prompt in enumerate(prompts):
        ids[i, : len(prompt)] = prompt
    return ids


def _extra_ids(inputs: Inputs, ids: Array) -> Array:
    """The extra id, which tells prompt tables apart, for every token; empty if none is given."""
    if "PROMPT_TABLE_EXTRA_ID" not in inputs:
        return np.empty((len(ids), 0), np.uint64)
    return np.broadcast_to(inputs["PROMPT_TABLE_EXTRA_ID"], ids.shape).astype(np.uint64)


def _logits_width(config: dict[str, Any]) -> int | None:
    """The width of the engine's logits: the vocabulary, padded to a multiple of the ranks."""
    model = config.get("pretrained_config", {})
    size = model.get("vocab_size")
    ranks = model.get("mapping", {}).get("tp_size", 1)
    return -(-size // ranks) * ranks if size else None
