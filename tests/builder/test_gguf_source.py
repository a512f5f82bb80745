"""A GGUF file gives the model that it was made from: config, names, order of rows, numbers."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants
from gguf_files import LLAMA, TOKENIZER, shapes, write_gguf, zeros

from builder.checkpoint import Checkpoint
from builder.checkpoint_check import check
from builder.convert import ConvertOptions, convert
from builder.dtypes import NUMPY, Array
from builder.errors import CorruptFileError, ModelError, UnknownFamilyError
from builder.source import Source, Tensor, gguf_file, open_source
from builder.source.gguf import huggingface_name
from builder.source.gguf_config import llama3_factors

DECODABLE = [
    kind
    for kind in GGMLQuantizationType
    if kind.name not in ("F32", "F64", "I8", "I16", "I32", "I64", "Q8_1", "Q8_K", "Q1_0")
]


def array_of(tensor: Tensor) -> Array:
    return np.concatenate(list(tensor.blocks())).reshape(tensor.shape)


def permuted(array: Array, heads: int) -> Array:
    """What llama.cpp's converter does to q and k."""
    halves = array.reshape(heads, 2, -1, *array.shape[1:])
    return halves.swapaxes(1, 2).reshape(array.shape)


GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(name: str) -> str:
    stem, ending = name.rsplit(".", 1)
    if stem in GGUF_NAMES:
        return f"{GGUF_NAMES[stem]}.{ending}"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{GGUF_NAMES[part]}.{ending}"


def to_gguf(source: Source, path: Path, architecture: str) -> Path:
    """The model in `source` as llama.cpp would write it, in float32."""
    config = source.config
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    tensors = {}
    for name, tensor in source.tensors.items():
        part = next((part for part in heads if part in name), None)
        array = array_of(tensor)
        if part and architecture == "llama":
            array = permuted(array, heads[part])
        tensors[gguf_name(name)] = array
    extra: dict[str, Any] = {}
    if config.rotary_scaling:
        factors = llama3_factors(config.rotary_scaling, config.rotary_base, config.head_size)
        tensors["rope_freqs.weight"] = factors.astype(np.float32)
    fields = {
        "block_count": config.num_hidden_layers,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": config.head_size,
        "attention.layer_norm_rms_epsilon": config.norm_epsilon,
        "context_length": config.max_position_embeddings,
        "rope.freq_base": config.rotary_base,
    }
    # transformers takes the size of the vocabulary from the tokens.
    tokens = [*TOKENIZER["tokens"], *(f"<{i}>" for i in range(258, config.vocab_size))]
    tokenizer = {**TOKENIZER, "tokens": tokens, "token_type": [1] * config.vocab_size}
    return write_gguf(
        path,
        tensors,
        architecture=architecture,
        fields=fields,
        tokenizer=tokenizer,
        extra=extra,
    )


@pytest.mark.reference
@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("llama", "llama"),
        ("llama_tied", "llama"),
        ("llama_bias", "llama"),
        ("qwen2", "qwen2"),
        ("qwen3", "qwen3"),
    ],
)
def test_a_model_comes_back_as_it_was_before_gguf(
    tiny_models: dict[str, Path], tmp_path: Path, name: str, architecture: str
) -> None:
    source = open_source(tiny_models[name])
    back = open_source(to_gguf(source, tmp_path / "model.gguf", architecture))
    assert back.config.architecture == source.config.architecture
    assert back.config.rotary_base == source.config.rotary_base
    assert back.config.norm_epsilon == source.config.norm_epsilon
    assert back.config.head_size == source.config.head_size
    assert back.config.tie_word_embeddings == source.config.tie_word_embeddings
    assert set(back.tensors) == set(source.tensors)
    for tensor, original in source.tensors.items():
        assert np.array_equal(array_of(back.tensors[tensor]), array_of(original)), tensor


@pytest.mark.reference
def test_rows_are_in_the_order_that_transformers_reads(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    """transformers' own reader is independent of ours: its logits must be the model's."""
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import AutoModelForCausalLM

        source = open_source(tiny_models["llama"])
        to_gguf(source, tmp_path / "model.gguf", "llama")
        models = [
            AutoModelForCausalLM.from_pretrained(tiny_models["llama"]),
            AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf"),
        ]
    ids = torch.arange(3, 40)[None]
    logits = [model(ids).logits for model in models]
    assert torch.allclose(*logits, atol=1e-5)


@pytest.mark.reference
def test_smollm2_has_the_weights_that_transformers_reads(smollm2_gguf: Path) -> None:
    pytest.importorskip("torch")
    source = open_source(smollm2_gguf)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(
            smollm2_gguf.parent, gguf_file=smollm2_gguf.name
        )
    theirs = {n: t for n, t in model.state_dict().items() if n != "lm_head.weight"}
    assert set(source.tensors) == set(theirs)
    for name, tensor in source.tensors.items():
        assert np.array_equal(array_of(tensor), theirs[name].float().numpy()), name


def test_smollm2_is_converted_whole(smollm2_gguf: Path, tmp_path: Path) -> None:
    made = convert(smollm2_gguf, tmp_path / "out")
    assert made.about["dtype"] == "bfloat16"
    assert made.about["parameters"] == 134_515_008
    check(tmp_path / "out")
    config = Checkpoint.open(tmp_path / "out").config
    assert (config["norm_epsilon"], config["rotary_base"]) == (1e-5, 100000.0)
    assert (config["head_size"], config["vocab_size"]) == (64, 49152)


@pytest.mark.parametrize("kind", DECODABLE, ids=lambda kind: kind.name)
def test_every_type_is_decoded_in_blocks_as_it_is_whole_with_its_rows_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: GGMLQuantizationType
) -> None:
    monkeypatch.setattr(gguf_file, "BLOCK_ELEMENTS", 700)
    fields = {**LLAMA, "embedding_length": 256}
    block, block_bytes = GGML_QUANT_SIZES[kind]
    rng = np.random.default_rng(1)
    tensors: dict[str, Array] = {}
    kinds = {}
    for name, shape in shapes(fields).items():
        tensors[name] = np.ones(shape, np.float32)
        if len(shape) == 2 and shape[1] == 256:
            size = (shape[0], shape[1] // block * block_bytes)
            # Small bytes keep the scales, which are float16 inside, finite.
            tensors[name] = rng.integers(0, 60, size, np.uint8)
            kinds[name] = kind
    path = write_gguf(tmp_path / "model.gguf", tensors, fields=fields, kinds=kinds)
    source = open_source(path)
    gate = source.tensors["model.layers.0.mlp.gate_proj.weight"]
    query = source.tensors["model.layers.0.self_attn.q_proj.weight"]
    with np.errstate(all="ignore"):
        whole = quants.dequantize(tensors["blk.0.ffn_gate.weight"], kind)
        rotated = quants.dequantize(tensors["blk.0.attn_q.weight"], kind)
    assert np.array_equal(array_of(gate).astype(np.float32), whole, equal_nan=True)
    assert np.array_equal(permuted(array_of(query), 4).astype(np.float32), rotated, equal_nan=True)
    assert len(list(gate.blocks())) == 48


@pytest.mark.parametrize(
    ("kind", "dtype", "auto"),
    [
        ("F32", "float32", "float16"),
        ("F16", "float16", "float16"),
        ("BF16", "bfloat16", "bfloat16"),
        ("Q8_0", "float32", "bfloat16"),
    ],
)
def test_the_dtype_is_the_stored_one_and_bfloat16_for_quantized_weights(
    tmp_path: Path, kind: str, dtype: str, auto: str
) -> None:
    kinds = {name: GGMLQuantizationType[kind] for name, shape in shapes().items() if len(shape) > 1}
    tensors = zeros()
    for name in kinds:
        tensors[name] = quants.quantize(tensors[name] + 0.5, kinds[name])
    path = write_gguf(tmp_path / "model.gguf", tensors, kinds=kinds)
    source = open_source(path)
    embedding = source.tensors["model.embed_tokens.weight"]
    assert embedding.dtype == dtype
    assert array_of(embedding).dtype == NUMPY[dtype]
    assert convert(path, tmp_path / "out").about["dtype"] == auto
    made = convert(path, tmp_path / "f32", options=ConvertOptions(dtype="float32"))
    assert made.about["dtype"] == "float32"
    tensor = Checkpoint.open(tmp_path / "f32").tensors()["lm_head.weight"].numpy()
    assert np.allclose(tensor, 0.5, rtol=1e-2)


def test_a_type_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    kind = GGMLQuantizationType.Q8_1
    stored = {"blk.0.ffn_up.weight": np.zeros((96, 2 * GGML_QUANT_SIZES[kind][1]), np.uint8)}
    path = write_gguf(tmp_path / "m.gguf", {**zeros(), **stored}, kinds=dict.fromkeys(stored, kind))
    with pytest.raises(ModelError, match=r"blk\.0\.ffn_up\.weight .*found Q8_1; use another"):
        open_source(path)


def test_llama3_scaling_is_recognised_by_its_vector(tmp_path: Path) -> None:
    scaling = {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    fields = {**LLAMA, "rope.freq_base": 500000.0}
    factors = llama3_factors(scaling, 500000.0, 16).astype(np.float32)
    path = write_gguf(
        tmp_path / "model.gguf", {**zeros(), "rope_freqs.weight": factors}, fields=fields
    )
    assert open_source(path).config.rotary_scaling == scaling
    odd = {**zeros(), "rope_freqs.weight": factors[::-1].copy()}
    with pytest.raises(ModelError, match=r"rope_freqs\.weight is not a RoPE scaling"):
        open_source(write_gguf(tmp_path / "odd.gguf", odd, fields=fields))


@pytest.mark.reference
def test_the_formula_of_llama3_is_that_of_transformers() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import LlamaConfig
        from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    config = LlamaConfig(
        hidden_size=4096, num_attention_heads=32, rope_theta=500000.0, rope_scaling=scaling
    )
    theirs, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = 500000.0 ** -(np.arange(0, 128, 2) / 128)
    assert np.allclose(plain / llama3_factors(scaling, 500000.0, 128), theirs, rtol=1e-5)


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"rope.scaling.type": "none"}, None),
        (
            {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0},
            {"rope_type": "linear", "factor": 4.0},
        ),
        (
            {
                "rope.scaling.type": "yarn",
                "rope.scaling.factor": 4.0,
                "rope.scaling.original_context_length": 64,
            },
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
        ),
    ],
)
def test_rope_scaling_is_read(tmp_path: Path, fields: dict[str, Any], wanted: Any) -> None:
    path = write_gguf(tmp_path / "model.gguf", zeros(), fields={**LLAMA, **fields})
    assert open_source(path).config.rotary_scaling == wanted


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"rope.scaling.type": "longrope"}, "'longrope'"),
        ({"rope.scaling.type": "linear"}, r"no field llama\.rope\.scaling\.factor"),
        ({"rope.dimension_count": 8}, "8 of 16 dimensions"),
        ({"attention.head_count": [4, 4]}, r"llama\.attention\.head_count must be one number"),
        ({"expert_count": 8}, "mixtures of experts"),
        ({"block_count": None}, r"no field llama\.block_count"),
        ({"attention.layer_norm_rms_epsilon": None}, "layer_norm_rms_epsilon"),
    ],
)
def test_what_cannot_be_carried_over_is_refused_by_key(
    tmp_path: Path, fields: dict[str, Any], said: str
) -> None:
    kept = {name: value for name, value in {**LLAMA, **fields}.items() if value is not None}
    path = write_gguf(tmp_path / "model.gguf", zeros(), fields=kept)
    with pytest.raises(ModelError, match=said):
        open_source(path)


def test_an_unknown_architecture_lists_the_known(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "model.gguf", zeros(), architecture="mamba")
    with pytest.raises(UnknownFamilyError, match="'mamba'; known are llama, qwen2, qwen3"):
        open_source(path)


def test_a_part_of_a_split_model_is_refused(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "model.gguf", zeros(), extra={"split.count": 3})
    with pytest.raises(ModelError, match=r"one part .*3 parts; join them"):
        open_source(path)


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = write_gguf(tmp_path / "whole.gguf", zeros()).read_bytes()
    cut = tmp_path / "cut.gguf"
    for size in (0, 3, 10, 30, 500, len(whole) // 10, len(whole) // 2, len(whole) - 1):
        cut.write_bytes(whole[:size])
        with pytest.raises(CorruptFileError, match=r"cut\.gguf is truncated"):
            open_source(cut)


def test_an_unknown_tensor_keeps_its_name_and_is_reported(tmp_path: Path) -> None:
    assert huggingface_name("blk.12.attn_q.bias") == "model.layers.12.self_attn.q_proj.bias"
    assert huggingface_name("blk.1.ssm_conv.weight") == "blk.1.ssm_conv.weight"
    extra = {**zeros(), "blk.0.ssm_conv.weight": np.zeros(4, np.float32)}
    path = write_gguf(tmp_path / "model.gguf", extra)
    with pytest.raises(ModelError, match=r"no place .*blk\.0\.ssm_conv\.weight"):
        convert(path, tmp_path / "out")
