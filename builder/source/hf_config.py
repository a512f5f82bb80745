"""Reads Hugging Face's config.json into a ModelConfig, and refuses what can't be carried over."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from builder import families
from builder.dtypes import FLOATS
from builder.errors import ModelError
from builder.source import hf_fields as hf
from builder.source.config import ModelConfig

Fields = dict[str, Any]


def model_config(path: Path, fields: Fields, stored_dtype: str) -> ModelConfig:
    """The config that `fields`, the content of the file `path`, describe.

    `stored_dtype` is that of the weights, for a config that doesn't name one. Raises
    UnknownFamilyError, and ModelError for a field that is missing, wrong or not expressible in a
    TensorRT-LLM checkpoint.
    """
    architecture = _architecture(path, fields)
    families.of(architecture)
    _refuse(path, fields)
    values: Fields = {}
    for field in hf.FIELDS:
        values[field.attribute] = _value(path, fields, field, values)
    values["head_size"] = _head_size(path, fields, values)
    values["rotary_base"], values["rotary_scaling"] = _rotary(path, fields, values)
    values["sliding_window"] = _sliding_window(path, fields, values)
    return ModelConfig(
        architecture=architecture, dtype=_dtype(path, fields, stored_dtype), **values
    )


def _architecture(path: Path, fields: Fields) -> str:
    names = fields.get("architectures")
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        raise ModelError(f"{path} has no field architectures", found=repr(names))
    return names[0]


def _value(path: Path, fields: Fields, field: hf.Field, known: Fields) -> Any:
    key = next((key for key in field.keys if fields.get(key) is not None), None)
    if key is None:
        if field.required:
            raise ModelError(
                f"{path} has no field {' or '.join(field.keys)}",
                do="use the config.json that was published with the weights",
            )
        return known[field.same_as] if field.same_as else field.default
    return _typed(path, key, fields[key], field.kind)


def _typed(path: Path, key: str, value: Any, kind: type[Any]) -> Any:
    if kind is float and type(value) is int:
        value = float(value)
    number = kind in (int, float)
    if type(value) is not kind or (number and not 0 < value < math.inf):
        wanted = f"a positive {kind.__name__}" if number else f"a {kind.__name__}"
        raise ModelError(f"{path}: {key} must be {wanted}", found=repr(value))
    return value


def _head_size(path: Path, fields: Fields, values: Fields) -> int:
    if fields.get("head_dim") is not None:
        return int(_typed(path, "head_dim", fields["head_dim"], int))
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


def _refuse(path: Path, fields: Fields) -> None:
    """Refuse what would be lost without a word."""
    if quantization := fields.get("quantization_config"):
        method = quantization.get("quant_method") if isinstance(quantization, dict) else None
        raise ModelError(
            f"{path} describes a model that is already quantized",
            found=f"quantization_config of {method or 'an unknown method'}",
            do="start from the unquantized model and quantize it with trtbuild quantize",
        )
    if fields.get("hidden_act") not in (None, *hf.ACTIVATIONS):
        raise ModelError(
            f"{path}: hidden_act is not one that TensorRT-LLM knows",
            found=repr(fields["hidden_act"]),
            do=f"known are {', '.join(hf.ACTIVATIONS)}",
        )


def _rotary(path: Path, fields: Fields, values: Fields) -> tuple[float, Fields | None]:
    """The base and the scaling of the rotary embedding, whichever version wrote them."""
    key = next((key for key in hf.ROPE_KEYS if fields.get(key)), hf.ROPE_KEYS[0])
    rope = fields.get(key) or {}
    if not isinstance(rope, dict) or any(isinstance(value, dict) for value in rope.values()):
        raise ModelError(f"{path}: {key} must be one rotary embedding for all layers")
    rope = dict(rope)
    partial = rope.pop("partial_rotary_factor", None) or fields.get("partial_rotary_factor")
    if partial not in (None, 1):
        raise ModelError(f"{path}: partial_rotary_factor can't be expressed", found=repr(partial))
    bases = (rope.pop("rope_theta", None), fields.get("rope_theta"), hf.ROTARY_BASE_DEFAULT)
    base = _typed(path, "rope_theta", next(base for base in bases if base is not None), float)
    legacy = rope.pop("type", "default")
    kind = str(rope.pop("rope_type", legacy))
    kind = hf.ROPE_TYPE_ALIASES.get(kind, kind)
    if kind in hf.PLAIN_ROPE:
        return base, None
    return base, _scaling(path, key, {"rope_type": kind, **rope}, values)


def _scaling(path: Path, key: str, rope: Fields, values: Fields) -> Fields:
    kind = rope["rope_type"]
    if kind not in hf.ROPE_SCALINGS:
        raise ModelError(
            f"{path}: {key} of this type can't be expressed in a TensorRT-LLM checkpoint",
            found=repr(kind),
            do=f"known are {', '.join(hf.ROPE_SCALINGS)}",
        )
    for name in hf.ROPE_SCALINGS[kind]:
        value: Any = rope.get(name)
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise ModelError(f"{path}: {key} has no positive {name}", found=repr(value))
    if kind == "yarn":
        # TensorRT-LLM would take 4096 and never reads attention_factor.
        rope.setdefault("original_max_position_embeddings", values["max_position_embeddings"])
        factor = rope.pop("attention_factor", None)
        if factor and not math.isclose(factor, 0.1 * math.log(rope["factor"]) + 1, rel_tol=1e-3):
            raise ModelError(f"{path}: attention_factor can't be expressed", found=str(factor))
    return rope


def _sliding_window(path: Path, fields: Fields, values: Fields) -> int | None:
    """The window, where all layers slide and it is smaller than the context.

    Mistral's layers all slide; Qwen's from `max_window_layers` on, and only when told to.
    """
    window = fields.get("sliding_window")
    opted_in = fields.get("use_sliding_window", "max_window_layers" not in fields)
    if window is None or not opted_in:
        return None
    window = int(_typed(path, "sliding_window", window, int))
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
