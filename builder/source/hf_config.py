"""Reads Hugging Face's config.json into a ModelConfig, and refuses what can't be carried over."""

from __future__ import annotations

from dataclasses import fields as attributes
from pathlib import Path
from typing import Any

from builder import families
from builder.dtypes import FLOATS
from builder.errors import ModelError
from builder.families import Family, lookup
from builder.source import hf_fields as hf
from builder.source.config import ModelConfig
from builder.source.hf_rotary import rotary
from builder.source.hf_values import read, typed

Fields = dict[str, Any]


def model_config(path: Path, fields: Fields, stored_dtype: str) -> ModelConfig:
    """The config that `fields`, the content of the file `path`, describe.

    `stored_dtype` is that of the weights, for a config that doesn't name one. Raises
    UnknownFamilyError, and ModelError for a field that is missing, wrong or not expressible in a
    TensorRT-LLM checkpoint.
    """
    architecture = architecture_of(path, fields)
    family = families.of(architecture)
    _refuse(path, fields, family)
    own = {field.attribute for field in family.fields}
    common = [field for field in hf.FIELDS if field.attribute not in own]
    values = read(path, fields, [*common, *family.fields])
    if "head_size" not in values:
        values["head_size"] = _head_size(path, fields, values)
    values = rotary(path, fields, values, family.attributes) | values
    if "sliding_window" not in values:
        values["sliding_window"] = _sliding_window(path, fields, values)
    values |= {name: formula(values) for name, formula in family.derived.items()}
    _refuse_lost(path, family, values)
    _refuse_unfit(path, family, values)
    known = {attribute.name for attribute in attributes(ModelConfig)} - {"extra"}
    return ModelConfig(
        architecture=architecture,
        dtype=_dtype(path, fields, stored_dtype),
        extra={name: value for name, value in values.items() if name not in known},
        **{name: value for name, value in values.items() if name in known},
    )


def architecture_of(path: Path, fields: Fields) -> str:
    """Hugging Face's name of the model's class. Raises ModelError where there is none."""
    names = fields.get("architectures")
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        raise ModelError(f"{path} has no field architectures", found=repr(names))
    return names[0]


def _head_size(path: Path, fields: Fields, values: Fields) -> int:
    if fields.get("head_dim") is not None:
        return int(typed(path, "head_dim", fields["head_dim"], int))
    hidden, heads = values["hidden_size"], values["num_attention_heads"]
    if hidden % heads:
        raise ModelError(
            f"{path}: hidden_size must be a multiple of num_attention_heads without a head_dim",
            found=f"{hidden} and {heads}",
        )
    return int(hidden // heads)


def _dtype(path: Path, fields: Fields, stored: str) -> str:
    dtype = next((fields[key] for key in hf.DTYPE_KEYS if fields.get(key)), stored)
    if dtype not in FLOATS:
        raise ModelError(
            f"{path}: dtype must be one of {', '.join(FLOATS)}",
            found=repr(dtype),
            do="start from the unquantized model",
        )
    return str(dtype)


def _refuse(path: Path, fields: Fields, family: Family) -> None:
    """Refuse what would be lost without a word."""
    for refused in family.refused:
        value = lookup(fields, refused.key)
        if value is not None and value not in refused.only:
            raise ModelError(
                f"{path}: {refused.key} can't be carried over: {refused.reason}",
                found=repr(value),
                do=f"expressible is {' or '.join(map(repr, refused.only)) or 'none'}",
            )


def _refuse_lost(path: Path, family: Family, values: Fields) -> None:
    for name, neutral in hf.NEUTRAL.items():
        if values[name] != neutral and name not in family.attributes:
            raise ModelError(
                f"{path}: {name} can't be expressed for this architecture", found=repr(values[name])
            )


def _refuse_unfit(path: Path, family: Family, values: Fields) -> None:
    for unfit in family.unfit:
        if unfit.found(values):
            raise ModelError(
                f"{path} can't be carried over: {unfit.reason}",
                found=", ".join(f"{name} {values[name]!r}" for name in unfit.attributes),
            )


def _sliding_window(path: Path, fields: Fields, values: Fields) -> int | None:
    """The window, where all layers slide and it is smaller than the context.

    Mistral's layers all slide; Qwen's from `max_window_layers` on, and only when told to.
    """
    window = fields.get("sliding_window")
    opted_in = fields.get("use_sliding_window", "max_window_layers" not in fields)
    if window is None or not opted_in:
        return None
    window = int(typed(path, "sliding_window", window, int))
    layers = values["num_hidden_layers"]
    sliding = layers - min(fields.get("max_window_layers") or 0, layers)
    if isinstance(kinds := fields.get("layer_types"), list):
        sliding = kinds.count("sliding_attention")
    if window >= values["max_position_embeddings"] or sliding == 0:
        return None
    if sliding < layers:
        raise ModelError(
            f"{path}: a sliding window in some layers only can't be expressed",
            found=f"{sliding} of {layers} layers",
            do="set use_sliding_window to false if prompts stay within the window",
        )
    return window
