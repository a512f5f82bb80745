"""Triton's `preprocessing` model: text in, token ids and word tables out.

Copied into every repository as `preprocessing/1/model.py`, so it stands alone: beside the standard
library it needs numpy, tokenizers and Triton's own module, which NVIDIA's containers have too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb_utils
from tokenizers import Tokenizer

Array = npt.NDArray[Any]

_UNSUPPORTED = ("DECODER_QUERY", "IMAGE_BYTES", "IMAGE_URL", "IMAGE_SIZES", "VIDEO_BYTES")
_OPTIONAL = (
    "BAD_WORDS_DICT",
    "STOP_WORDS_DICT",
    "EMBEDDING_BIAS_WORDS",
    "EMBEDDING_BIAS_WEIGHTS",
    "END_ID",
    "PAD_ID",
    "PROMPT_TABLE_EXTRA_ID",
)


class TritonPythonModel:
    """What Triton drives: many requests in, their prompts tokenized together."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the tokenizer that the model's parameters name."""
        parameters = json.loads(args["model_config"])["parameters"]
        repository = Path(args["model_repository"]).parent
        engine = _parameter(parameters, "gpt_model_path")
        self._preprocessor = Preprocessor(
            repository / _parameter(parameters, "tokenizer_dir"),
            repository / engine if engine else None,
            add_special_tokens=_parameter(parameters, "add_special_tokens", "true").lower()
            in ("true", "1", "yes"),
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response a request; a request that can't be honoured gets its own error."""
        read = [_attempt(_inputs, request) for request in requests]
        texts = [_attempt(_rows, "QUERY", i["QUERY"]) if isinstance(i, dict) else i for i in read]
        prompts = iter(self._preprocessor.encode_all([t for t in texts if isinstance(t, list)]))
        responses = []
        for inputs, text in zip(read, texts, strict=True):
            if isinstance(inputs, dict) and isinstance(text, list):
                inputs = _attempt(self._preprocessor.outputs, next(prompts), inputs)
            responses.append(_response(text if isinstance(text, ValueError) else inputs))
        return responses


class Preprocessor:
    """The model's work without Triton: names and shapes are those of `config.pbtxt`."""

    def __init__(
        self, tokenizer_dir: Path, engine_dir: Path | None, *, add_special_tokens: bool
    ) -> None:
        self._tokenizer = Tokenizer.from_file(str(tokenizer_dir / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._add_special_tokens = add_special_tokens
        template = self._tokenizer.encode("", add_special_tokens=True).ids
        self._bos = template[0] if add_special_tokens and template else None
        self._eos = _eos_ids(tokenizer_dir, self._tokenizer)
        self._pad = _pad_id(tokenizer_dir, self._tokenizer, self._eos)
        self._vocab_size = _vocab_size(engine_dir) or self._tokenizer.get_vocab_size()

    def encode_all(self, requests: Sequence[list[list[str]]]) -> list[list[list[int]]]:
        """Every request's prompts (one text a row) as ids, in one parallel call."""
        texts = [row[0] for rows in requests for row in rows]
        encoded = iter(
            self._tokenizer.encode_batch_fast(texts, add_special_tokens=self._add_special_tokens)
        )
        return [[self._one_bos(next(encoded).ids) for _ in rows] for rows in requests]

    def outputs(self, prompts: list[list[int]], inputs: dict[str, Array]) -> dict[str, Array]:
        """The output tensors of one request of `len(prompts)` rows.

        Raises ValueError, naming the input, for one that can't be honoured.
        """
        rows = len(prompts)
        if not all(prompts):
            raise ValueError("QUERY: the prompt has no tokens")
        lengths = np.array([[len(ids)] for ids in prompts], np.int32)
        end = _column(inputs, "END_ID", self._eos[0] if self._eos else -1, rows)
        pad = _column(inputs, "PAD_ID", self._pad, rows)
        # who sets an end of their own (-1 for none) means that one alone
        more_ends = [] if "END_ID" in inputs else self._eos[1:]
        ids = _padded(prompts, pad)
        return {
            "INPUT_ID": ids,
            "REQUEST_INPUT_LEN": lengths,
            "DECODER_INPUT_ID": np.empty((rows, 0), np.int32),
            "REQUEST_DECODER_INPUT_LEN": np.zeros((rows, 1), np.int32),
            "BAD_WORDS_IDS": self._words(inputs, "BAD_WORDS_DICT", rows, []),
            "STOP_WORDS_IDS": self._words(inputs, "STOP_WORDS_DICT", rows, more_ends),
            "EMBEDDING_BIAS": self._bias(inputs, rows),
            "REQUEST_OUTPUT_LEN": inputs["REQUEST_OUTPUT_LEN"].astype(np.int32),
            "OUT_END_ID": end,
            "OUT_PAD_ID": pad,
            "OUT_PROMPT_TABLE_EXTRA_IDS": _extra_ids(inputs, ids),
        }

    def _one_bos(self, ids: list[int]) -> list[int]:
        """Without the BOS that the tokenizer put before a prompt that brings its own."""
        return ids[1:] if self._bos is not None and ids[:2] == [self._bos] * 2 else ids

    def _words(
        self, inputs: dict[str, Array], name: str, rows: int, single_ids: list[int]
    ) -> Array:
        """The word table [rows, 2, width]: ids, and below them each word's exclusive end.

        The ends are padded with -1, the ids with 0; `single_ids` are words of one token each.
        """
        words = _rows(name, inputs[name]) if name in inputs else [[]] * rows
        if len(words) != rows:
            raise ValueError(f"{name}: {len(words)} rows for {rows} prompts")
        lists = [[*self._encode(row), *([i] for i in single_ids)] for row in words]
        width = max((sum(map(len, row)) for row in lists), default=0)
        table = np.zeros((rows, 2, width), np.int32)
        table[:, 1] = -1
        for i, row in enumerate(lists):
            flat = [token for word in row for token in word]
            table[i, 0, : len(flat)] = flat
            table[i, 1, : len(row)] = np.cumsum([len(word) for word in row])
        return table

    def _encode(self, words: Iterable[str]) -> list[list[int]]:
        encoded = (self._tokenizer.encode(word, add_special_tokens=False).ids for word in words)
        return [ids for ids in encoded if ids]

    def _bias(self, inputs: dict[str, Array], rows: int) -> Array:
        """[rows, vocabulary] where words are given, else [rows, 0]: nothing to add.

        A word's weight goes to each of its tokens.
        """
        if "EMBEDDING_BIAS_WORDS" not in inputs:
            return np.empty((rows, 0), np.float32)
        words = _rows("EMBEDDING_BIAS_WORDS", inputs["EMBEDDING_BIAS_WORDS"])
        weights = inputs.get("EMBEDDING_BIAS_WEIGHTS", np.empty((0, 0), np.float32))
        if weights.shape != (rows, len(words[0]) if words else 0) or len(words) != rows:
            raise ValueError("EMBEDDING_BIAS_WEIGHTS: must have one weight for each word")
        bias = np.zeros((rows, self._vocab_size), np.float32)
        for i, row in enumerate(words):
            for word, weight in zip(row, weights[i], strict=True):
                ids = self._tokenizer.encode(word, add_special_tokens=False).ids
                bias[i, ids] += weight
        return bias


def _inputs(request: Any) -> dict[str, Array]:
    tensors = {name: pb_utils.get_input_tensor_by_name(request, name) for name in _UNSUPPORTED}
    if given := [name for name, tensor in tensors.items() if tensor is not None]:
        raise ValueError(f"{given[0]}: this engine takes one prompt of text and nothing else")
    found = (
        (name, pb_utils.get_input_tensor_by_name(request, name))
        for name in ("QUERY", "REQUEST_OUTPUT_LEN", *_OPTIONAL)
    )
    return {name: tensor.as_numpy() for name, tensor in found if tensor is not None}


def _response(result: dict[str, Array] | ValueError) -> Any:
    if isinstance(result, ValueError):
        error = pb_utils.TritonError(str(result), pb_utils.TritonError.INVALID_ARG)
        return pb_utils.InferenceResponse(error=error)
    return pb_utils.InferenceResponse([pb_utils.Tensor(n, array) for n, array in result.items()])


def _attempt(function: Any, *args: Any) -> Any:
    """What `function` returns, or the ValueError that it raises."""
    try:
        return function(*args)
    except ValueError as error:
        return error


def _rows(name: str, array: Array) -> list[list[str]]:
    """A tensor of bytes [rows, n] as text. Raises ValueError where it isn't UTF-8."""
    try:
        return [[text.decode() for text in row] for row in array]
    except UnicodeDecodeError:
        raise ValueError(f"{name}: not UTF-8") from None


def _column(inputs: dict[str, Array], name: str, default: int, rows: int) -> Array:
    if name in inputs:
        return inputs[name].astype(np.int32)
    return np.full((rows, 1), default, np.int32)


def _padded(prompts: list[list[int]], pad: Array) -> Array:
    ids = np.repeat(pad, max(map(len, prompts)), axis=1)
    for i, prompt in enumerate(prompts):
        ids[i, : len(prompt)] = prompt
    return ids


def _extra_ids(inputs: dict[str, Array], ids: Array) -> Array:
    """The extra id, which tells prompt tables apart, for every token; empty if none is given."""
    if "PROMPT_TABLE_EXTRA_ID" not in inputs:
        return np.empty((len(ids), 0), np.uint64)
    return np.broadcast_to(inputs["PROMPT_TABLE_EXTRA_ID"], ids.shape).astype(np.uint64)


def _parameter(parameters: dict[str, Any], name: str, default: str = "") -> str:
    value: str = parameters.get(name, {}).get("string_value", "")
    return default if not value or value.startswith("${") else value


def _eos_ids(folder: Path, tokenizer: Tokenizer) -> list[int]:
    """Every end of sequence of the model: generation_config.json's, else the tokenizer's one."""
    ids = _json(folder / "generation_config.json").get("eos_token_id")
    if ids is None:
        ids = _token_id(_json(folder / "tokenizer_config.json").get("eos_token"), tokenizer)
    return ids if isinstance(ids, list) else [] if ids is None else [ids]


def _pad_id(folder: Path, tokenizer: Tokenizer, eos: list[int]) -> int:
    found = _token_id(_json(folder / "tokenizer_config.json").get("pad_token"), tokenizer)
    return found if found is not None else eos[0] if eos else 0


def _token_id(token: str | dict[str, Any] | None, tokenizer: Tokenizer) -> int | None:
    content = token.get("content") if isinstance(token, dict) else token
    found: int | None = tokenizer.token_to_id(content) if content else None
    return found


def _vocab_size(engine_dir: Path | None) -> int | None:
    """The width of the engine's logits: the vocabulary, padded to a multiple of the ranks."""
    model = _json(engine_dir / "config.json").get("pretrained_config", {}) if engine_dir else {}
    size = model.get("vocab_size")
    ranks = model.get("mapping", {}).get("tp_size", 1)
    return -(-size // ranks) * ranks if size else None


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    content: dict[str, Any] = json.loads(path.read_text())
    return content
