"""A small random encoder in sentence-transformers' form, and what it computes, without torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import erf
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from builder import families
from builder.safetensors_writer import Compute, PendingTensor, write

Array = NDArray[Any]

MAX_SEQ_LEN = 24
WORDS = ("the", "a", "cat", "dog", "sat", "ran", "on", "mat", "##s", "##ing", "and", ".", ",")
_LETTERS = [chr(code) for code in range(97, 123)]
VOCABULARY = list(
    dict.fromkeys(
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS, *_LETTERS, *(f"##{c}" for c in _LETTERS)]
    )
)
FIELDS: dict[str, Any] = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "vocab_size": len(VOCABULARY),
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 40,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
    "pad_token_id": 0,
    "torch_dtype": "float32",
}


def write_encoder(
    folder: Path, *, pooling: str = "mean", normalize: bool = True, **fields: Any
) -> Path:
    """Write a model whose config.json has `fields` too; its texts have MAX_SEQ_LEN tokens."""
    folder.mkdir(parents=True)
    config = {**FIELDS, **fields}
    (folder / "config.json").write_text(json.dumps(config))
    _write_weights(folder / "model.safetensors", config)
    write_tokenizer(folder)
    modules = ["Transformer", "Pooling", *(["Normalize"] if normalize else [])]
    listed = [
        {"idx": n, "name": str(n), "path": f"{n}_{kind}" if n else "", "type": f"models.{kind}"}
        for n, kind in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": MAX_SEQ_LEN}))
    (folder / "1_Pooling").mkdir()
    modes = {"mean": "mean_tokens", "cls": "cls_token", "max": "max_tokens"}
    chosen = {f"pooling_mode_{mode}": name == pooling for name, mode in modes.items()}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(chosen))
    return folder


def tensors(config: dict[str, Any]) -> dict[str, Array]:
    """The weights by Hugging Face's names, the same for the same sizes."""
    sizes = {
        "head_size": config["hidden_size"] // config["num_attention_heads"],
        "num_key_value_heads": config["num_attention_heads"],
        **config,
    }
    random = np.random.default_rng(0)
    made: dict[str, Array] = {}
    for expected in families.of(config["architectures"][0]).expected(sizes):
        for name, shape in expected.sources.items():
            around = 1.0 if name.endswith("LayerNorm.weight") else 0.0
            made[name] = (around + 0.2 * random.standard_normal(shape)).astype(np.float32)
    return made


def expected_embedding(config: dict[str, Any], ids: Sequence[int]) -> Array:
    """The mean of a BERT's states over the tokens, of length 1: float64[hidden size].

    Written from the paper (arXiv 1810.04805), one text at a time.
    """
    w = {name: array.astype(np.float64) for name, array in tensors(config).items()}
    heads, eps = config["num_attention_heads"], config["layer_norm_eps"]

    def linear(x: Array, name: str) -> Array:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x: Array, name: str) -> Array:
        x = x - x.mean(-1, keepdims=True)
        scale = np.sqrt((x**2).mean(-1, keepdims=True) + eps)
        return x / scale * w[f"{name}.weight"] + w[f"{name}.bias"]

    x = w["embeddings.word_embeddings.weight"][list(ids)]
    x = x + w["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for layer in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{layer}."
        q, k, v = (
            linear(x, f"{at}attention.self.{part}").reshape(len(ids), heads, -1).swapaxes(0, 1)
            for part in ("query", "key", "value")
        )
        scores = np.exp(q @ k.swapaxes(1, 2) / np.sqrt(q.shape[-1]))
        mixed = (scores / scores.sum(-1, keepdims=True)) @ v
        mixed = linear(mixed.swapaxes(0, 1).reshape(len(ids), -1), f"{at}attention.output.dense")
        x = norm(x + mixed, f"{at}attention.output.LayerNorm")
        inner = linear(x, f"{at}intermediate.dense")
        inner = inner * 0.5 * (1 + np.vectorize(erf)(inner / np.sqrt(2)))
        x = norm(x + linear(inner, f"{at}output.dense"), f"{at}output.LayerNorm")
    pooled = x.mean(0)
    return pooled / np.linalg.norm(pooled)


def _write_weights(path: Path, config: dict[str, Any]) -> None:
    write(
        path,
        [
            PendingTensor(
                name=name,
                dtype="float32",
                shape=array.shape,
                segments=lambda a=array: [Compute(size_bytes=a.nbytes, run=lambda: a)],
            )
            for name, array in tensors(config).items()
        ],
    )


def write_tokenizer(folder: Path) -> None:
    """Its files: WordPiece, and [CLS] and [SEP] around a text."""
    tokenizer = Tokenizer(
        models.WordPiece({t: n for n, t in enumerate(VOCABULARY)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair=None, special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    # as publishers leave it: for training, not for serving
    tokenizer.enable_padding(length=16)
    tokenizer.enable_truncation(16)
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(special))
