"""A Hugging Face folder as TensorRT-LLM's PyTorch backend takes it: what it is, and is it whole.

More architectures run there than have a family table here, so only what every model has is read:
heads, layers, experts, context, quantization. Nothing of a tensor is read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from builder import families, manifest
from builder.encoder import refuse_encoder
from builder.errors import LimitError, ModelError
from builder.families import FAMILIES, lookup
from builder.families.elsewhere import LLMAPI_ONLY
from builder.mapping import Layout
from builder.source import hf_config, hf_fields, hf_values, huggingface
from builder.targets.llmapi.files import all_files, tokenizer_files, weight_files
from builder.targets.llmapi.quantization import quantization

_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_UNSCALED = ("su", "longrope", "llama3", "yarn", "default", "none")
"""Rotary embeddings whose factor is in max_position_embeddings already (`model_engine.py`)."""

Fields = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class HfModel:
    """A model folder. `max_seq_len` is in tokens, counts are None where config.json doesn't say."""

    path: Path
    architecture: str
    dtype: str | None
    known: bool
    """Whether trtbuild has a table of its family."""
    heads: int | None
    kv_heads: int | None
    layers: int | None
    experts: int | None
    max_seq_len: int | None
    """The longest sequence that the PyTorch backend lets it have."""
    quantization: str | None
    """ModelOpt's algorithm, or the method of another tool; None for plain weights."""
    kv_cache: str | None
    remote_code: bool
    """Whether config.json names Python code of the folder's own."""
    weights: tuple[str, ...]
    files: tuple[str, ...]
    """All that a copy takes: the weights and what lies beside them."""
    tokenizer: Mapping[str, Callable[[], bytes]]
    fields: Fields
    """config.json."""

    def check(self, layout: Layout, *, attention_dp: bool = False) -> None:
        """Raise LimitError for a model that can't be divided so.

        With attention data parallelism every rank has all heads.
        """
        config = {
            "num_attention_heads": self.heads or layout.tp * layout.cp,
            "num_key_value_heads": self.kv_heads or self.heads or layout.tp,
            "num_hidden_layers": self.layers or layout.pp,
            "moe": {"num_experts": self.experts},
        }
        if self.experts is None and not self.known:
            layout = replace(layout, moe_ep=1)
        if attention_dp:
            config |= {"num_attention_heads": layout.tp * layout.cp, "num_key_value_heads": 1}
        layout.check(_ANY, config, names=_NAMES)


_ANY = replace(FAMILIES["LlamaForCausalLM"], pipeline=True, context=True)
"""Stands for every family: the PyTorch backend divides layers and context of them all."""

_NAMES = {
    "tp": "tensor_parallel_size",
    "pp": "pipeline_parallel_size",
    "cp": "context_parallel_size",
    "moe_ep": "moe_expert_parallel_size",
}
"""What `--set` calls ranks, which every command that writes such a folder has."""


def open_model(path: Path) -> HfModel:
    """The model in the folder `path`.

    Raises ModelError for what isn't a Hugging Face folder, or not one that TensorRT-LLM can load,
    CorruptFileError for a weights file that is cut short.
    """
    _refuse_others(path)
    fields = huggingface.read_json(path / huggingface.CONFIG)
    _refuse_checkpoint(path, fields)
    architecture = hf_config.architecture_of(path / huggingface.CONFIG, dict(fields))
    refuse_encoder(architecture, "the target llmapi")
    inner = fields.get("text_config")
    text = {**fields, **inner} if isinstance(inner, Mapping) else fields
    algorithm, cache = quantization(path, text)
    weights = weight_files(path)
    counts = _counts(path / huggingface.CONFIG, text, architecture)
    return HfModel(
        path=path,
        architecture=architecture,
        dtype=next((str(text[key]) for key in hf_fields.DTYPE_KEYS if text.get(key)), None),
        known=architecture in FAMILIES,
        **counts,
        max_seq_len=_max_seq_len(text),
        quantization=algorithm,
        kv_cache=cache,
        remote_code=bool(fields.get("auto_map")),
        weights=weights,
        files=all_files(path, weights),
        tokenizer=tokenizer_files(path, text),
        fields=fields,
    )


def _refuse_others(path: Path) -> None:
    known = manifest.read(path) if (path / manifest.NAME).is_file() else None
    made = known.kind if known else huggingface.EXPORTED
    if known and known.options.get("target") == "llmapi":
        raise ModelError(
            f"{path} is not a Hugging Face folder",
            found="a folder for the LLM API, which trtbuild built",
            do="give the model's own folder",
        )
    if made != huggingface.EXPORTED:
        raise ModelError(
            f"{path} is not a Hugging Face folder",
            found=f"a{'n' if made[0] in 'aeiou' else ''} {made} that trtbuild made",
            do=_DO.get(made, "give the model's own folder"),
        )
    if path.is_dir() and (path / huggingface.CONFIG).is_file():
        return
    gguf = path.suffix == ".gguf" or (path.is_dir() and any(path.glob("*.gguf")))
    found = "a GGUF file" if gguf else "no config.json" if path.is_dir() else "no folder"
    raise ModelError(
        f"{path} is not a Hugging Face folder",
        found=found,
        do="the PyTorch backend of TensorRT-LLM reads no GGUF: give the original model"
        if gguf
        else "give a model folder with config.json and safetensors",
    )


_DO = {
    "checkpoint": "no conversion is needed here: give the model's own folder, or what trtbuild "
    "quantize --hf wrote",
    "engine": "move it with trtbuild migrate ENGINE --model FOLDER",
}


def _refuse_checkpoint(path: Path, fields: Fields) -> None:
    """Refuse TensorRT-LLM's own formats, whoever wrote them."""
    kind = None
    if "pretrained_config" in fields and "build_config" in fields:
        kind = "engine"
    elif isinstance(fields.get("architecture"), str) and "architectures" not in fields:
        kind = "checkpoint"
    if kind is not None:
        raise ModelError(
            f"{path} is not a Hugging Face folder", found=f"a TensorRT-LLM {kind}", do=_DO[kind]
        )


def _counts(path: Path, fields: Fields, architecture: str) -> dict[str, int | None]:
    """Heads, layers and experts: as the family spells them, else as most do."""
    try:
        family = families.of(architecture)
        values: Mapping[str, Any] = hf_values.read(
            path, dict(fields), [*_spellings(family.fields), *family.fields]
        )
    except ModelError:
        values = {
            entry.attribute: next((fields[key] for key in entry.keys if fields.get(key)), None)
            for entry in hf_fields.FIELDS
        }
        values["num_experts"] = next((fields[key] for key in _EXPERTS if fields.get(key)), None)
    wanted = ("num_attention_heads", "num_key_value_heads", "num_hidden_layers", "num_experts")
    found = [values.get(name) for name in wanted]
    counts = [n if type(n) is int and n > 0 else None for n in found]
    return dict(zip(("heads", "kv_heads", "layers", "experts"), counts, strict=True))


def _spellings(own: Any) -> list[families.Field]:
    attributes = {field.attribute for field in own}
    return [field for field in hf_fields.FIELDS if field.attribute not in attributes]


def _max_seq_len(fields: Fields) -> int | None:
    """What the PyTorch backend infers; beyond it, a max_seq_len is lowered with a warning.

    Not `limits.context_tokens`: engines reach as far as YaRN does, and this backend as far as
    dynamic scaling does.
    """
    keys = next(f.keys for f in hf_fields.FIELDS if f.attribute == "max_position_embeddings")
    trained = next((fields[key] for key in keys if fields.get(key)), None)
    if type(trained) is not int:
        return None
    rope = fields.get("rope_scaling") or fields.get("rope_parameters") or {}
    kind = lookup(rope, "type") or lookup(rope, "rope_type")
    factor = lookup(rope, "factor") if kind not in _UNSCALED else None
    return math.ceil(trained * factor) if isinstance(factor, int | float) else trained


def refuse_length(model: HfModel, max_seq_len: int | None) -> None:
    """Raise LimitError for sequences that the PyTorch backend would cut without refusing them."""
    if (
        max_seq_len is not None
        and model.max_seq_len is not None
        and max_seq_len > model.max_seq_len
    ):
        raise LimitError(
            f"max_seq_len {max_seq_len} is beyond what the model was made for",
            found=f"a context of {model.max_seq_len} tokens",
            do=f"ask for at most {model.max_seq_len}",
        )


def unknown(model: HfModel) -> str | None:
    """What to say of an architecture that trtbuild has no table of."""
    if model.known:
        return None
    listed = (
        "TensorRT-LLM's PyTorch backend runs it"
        if model.architecture in LLMAPI_ONLY
        else ("see TensorRT-LLM's list of supported models")
    )
    return (
        f"{model.architecture} isn't known to trtbuild, so its layout is checked in part: {listed}"
    )
