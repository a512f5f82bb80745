"""Families whose code isn't transformers' own are compared with one whose is.

The same weights, named and fused as the family's published code reads them, must give the same
checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compare import arrays_of
from model_files import FIELDS, huggingface_shapes, write_safetensors
from modern_fields import CHATGLM, baichuan, plain, without

from builder.checkpoint import Checkpoint
from builder.checkpoint_check import check
from builder.convert import ConvertOptions, convert
from builder.dtypes import Array


def weights(fields: Mapping[str, Any]) -> dict[str, Array]:
    rng = np.random.default_rng(5)
    shapes = huggingface_shapes(dict(fields))
    return {n: rng.normal(size=s, scale=0.1).astype(np.float32) for n, s in shapes.items()}


def write(
    folder: Path, fields: Mapping[str, Any], arrays: Mapping[str, Array], tokenizer: Path
) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(fields))
    write_safetensors(folder / "model.safetensors", dict(arrays))
    (folder / "tokenizer.json").write_bytes((tokenizer / "tokenizer.json").read_bytes())
    return folder


def assert_alike(one: Path, other: Path, work: Path) -> None:
    """Both folders give the same tensors on every rank."""
    for tp in (1, 2):
        options = ConvertOptions(dtype="float32", tp=tp)
        for name, folder in (("one", one), ("other", other)):
            convert(folder, work / f"{name}{tp}", options=options)
            check(work / f"{name}{tp}")
        for rank in range(tp):
            mine, wanted = (arrays_of(work / f"{name}{tp}", rank) for name in ("one", "other"))
            assert mine.keys() == wanted.keys()
            for name, array in wanted.items():
                assert mine[name].tobytes() == array.tobytes(), (name, rank)


def renamed(arrays: Mapping[str, Array], names: Mapping[str, str]) -> dict[str, Array]:
    """Arrays whose names' parts are replaced, the first that fits."""
    result = {}
    for name, array in arrays.items():
        old = next((part for part in names if part in name), None)
        result[name.replace(old, names[old]) if old else name] = array
    return result


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_internlm2_is_llama_with_q_k_and_v_by_key_value_head(
    tmp_path: Path, tiny_tokenizer: Path, bias: bool, tied: bool
) -> None:
    fields = {**FIELDS, "attention_bias": bias, "tie_word_embeddings": tied}
    arrays = weights({**fields, "attn_bias": bias})
    theirs = dict(arrays)
    for layer in range(2):
        prefix = f"model.layers.{layer}.self_attn."
        for kind in ("weight", "bias") if bias else ("weight",):
            q, k, v = (theirs.pop(f"{prefix}{part}_proj.{kind}") for part in "qkv")
            groups = zip(np.split(q, 2), np.split(k, 2), np.split(v, 2), strict=True)
            fused = np.concatenate([rows for group in groups for rows in group])
            theirs[f"model.layers.{layer}.attention.wqkv.{kind}"] = fused
    names = {
        "model.embed_tokens": "model.tok_embeddings",
        "lm_head": "output",
        "self_attn.o_proj": "attention.wo",
        "mlp.gate_proj": "feed_forward.w1",
        "mlp.up_proj": "feed_forward.w3",
        "mlp.down_proj": "feed_forward.w2",
        "input_layernorm": "attention_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    own = without(fields, "attention_bias")
    own |= {"architectures": ["InternLM2ForCausalLM"], "bias": bias}
    assert_alike(
        write(tmp_path / "internlm2", own, renamed(theirs, names), tiny_tokenizer),
        write(tmp_path / "llama", fields, arrays, tiny_tokenizer),
        tmp_path,
    )


@pytest.mark.parametrize("tied", [False, True])
def test_exaone_is_llama_under_gpt2s_names(
    tmp_path: Path, tiny_tokenizer: Path, tied: bool
) -> None:
    fields = {**FIELDS, "tie_word_embeddings": tied}
    arrays = weights(fields)
    names = {
        "model.embed_tokens": "transformer.wte",
        "model.norm": "transformer.ln_f",
    }
    layer = {
        "self_attn.o_proj": "attn.attention.out_proj",
        "self_attn": "attn.attention",
        "mlp.gate_proj": "mlp.c_fc_0",
        "mlp.up_proj": "mlp.c_fc_1",
        "mlp.down_proj": "mlp.c_proj",
        "input_layernorm": "ln_1",
        "post_attention_layernorm": "ln_2",
    }
    theirs = renamed(renamed(arrays, {**names, "model.layers": "transformer.h"}), layer)
    theirs["transformer.rotary.inv_freq"] = np.ones(8, np.float32)
    own = without(fields, "num_hidden_layers", "hidden_act", "rms_norm_eps")
    own |= {
        "architectures": ["ExaoneForCausalLM"],
        "num_layers": 2,
        "activation_function": "silu",
        "layer_norm_epsilon": 1e-5,
    }
    assert_alike(
        write(tmp_path / "exaone", own, theirs, tiny_tokenizer),
        write(tmp_path / "llama", fields, arrays, tiny_tokenizer),
        tmp_path,
    )


def test_skywork_is_llama(tmp_path: Path, tiny_tokenizer: Path) -> None:
    arrays = weights(FIELDS)
    own = {**FIELDS, "architectures": ["SkyworkForCausalLM"]}
    assert_alike(
        write(tmp_path / "skywork", own, arrays, tiny_tokenizer),
        write(tmp_path / "llama", FIELDS, arrays, tiny_tokenizer),
        tmp_path,
    )


@pytest.mark.parametrize("vocabulary", [64000, 640])
def test_baichuan_is_llama_with_a_fused_projection_and_perhaps_a_normalized_head(
    tmp_path: Path, tiny_tokenizer: Path, vocabulary: int
) -> None:
    own = baichuan(32, vocab_size=vocabulary)
    fields = {**own, "architectures": ["LlamaForCausalLM"], "num_key_value_heads": 32}
    arrays = weights(fields)
    theirs = dict(arrays)
    for layer in range(2):
        prefix = f"model.layers.{layer}.self_attn."
        parts = [theirs.pop(f"{prefix}{part}_proj.weight") for part in "qkv"]
        theirs[f"{prefix}W_pack.weight"] = np.concatenate(parts)
    if vocabulary != 64000:
        head = arrays["lm_head.weight"]
        length = np.sqrt((head.astype(np.float32) ** 2).sum(axis=1, keepdims=True))
        arrays["lm_head.weight"] = head / length
    assert_alike(
        write(tmp_path / "baichuan", own, theirs, tiny_tokenizer),
        write(tmp_path / "llama", fields, arrays, tiny_tokenizer),
        tmp_path,
    )


@pytest.mark.parametrize("bias", [False, True])
def test_chatglm_is_glm_under_its_own_names(
    tmp_path: Path, tiny_tokenizer: Path, bias: bool
) -> None:
    fields = plain("GlmForCausalLM", head_dim=16, attention_bias=bias, partial_rotary_factor=0.5)
    arrays = weights({**fields, "add_qkv_bias": bias})
    theirs = dict(arrays)
    for layer in range(2):
        prefix = f"model.layers.{layer}.self_attn."
        for kind in ("weight", "bias") if bias else ("weight",):
            parts = [theirs.pop(f"{prefix}{part}_proj.{kind}") for part in "qkv"]
            theirs[f"{prefix}query_key_value.{kind}"] = np.concatenate(parts)
    names = {
        "model.embed_tokens": "transformer.embedding.word_embeddings",
        "model.norm": "transformer.encoder.final_layernorm",
        "lm_head": "transformer.output_layer",
        "model.layers": "transformer.encoder.layers",
    }
    layer_names = {
        "self_attn.o_proj": "self_attention.dense",
        "self_attn": "self_attention",
        "mlp.gate_up_proj": "mlp.dense_h_to_4h",
        "mlp.down_proj": "mlp.dense_4h_to_h",
    }
    theirs = renamed(renamed(theirs, names), layer_names)
    theirs["transformer.rotary_pos_emb.inv_freq"] = np.ones(4, np.float32)
    chatglm = write(tmp_path / "chatglm", {**CHATGLM, "add_qkv_bias": bias}, theirs, tiny_tokenizer)
    glm = write(tmp_path / "glm", fields, arrays, tiny_tokenizer)
    assert_alike(chatglm, glm, tmp_path)
    mine, wanted = (Checkpoint.open(tmp_path / name).config for name in ("one1", "other1"))
    named = {"architecture", "chatglm_version", "tie_word_embeddings"}
    assert without(mine, *named) == without(wanted, *named)


def test_biases_of_a_chatglm_are_carried_as_its_class_has_them(
    tmp_path: Path, tiny_tokenizer: Path
) -> None:
    fields = {**CHATGLM, "add_bias_linear": True, "rmsnorm": False}
    sizes = {"num_hidden_layers": 2, "num_key_value_heads": 2, "intermediate_size": 96}
    arrays = weights({**fields, **sizes, "vocab_size": 384})
    convert(
        write(tmp_path / "hf", fields, arrays, tiny_tokenizer),
        tmp_path / "out",
        options=ConvertOptions(dtype="float32"),
    )
    check(tmp_path / "out")
    made = arrays_of(tmp_path / "out")
    source = "transformer.encoder.layers.1."
    first, second = np.split(arrays[source + "mlp.dense_h_to_4h.bias"], 2)
    wanted = {
        "mlp.fc.bias": np.concatenate([second, first]),
        "mlp.proj.bias": arrays[source + "mlp.dense_4h_to_h.bias"],
        "attention.dense.bias": arrays[source + "self_attention.dense.bias"],
        "input_layernorm.bias": arrays[source + "input_layernorm.bias"],
        "post_layernorm.bias": arrays[source + "post_attention_layernorm.bias"],
    }
    for name, array in wanted.items():
        assert made["transformer.layers.1." + name].tobytes() == array.tobytes(), name
