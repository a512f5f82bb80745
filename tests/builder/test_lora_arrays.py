"""Promise: an adapter becomes the rows that TensorRT-LLM takes, or is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import peft_adapters
import pytest
from safetensors.numpy import load_file

from builder.errors import CorruptFileError, ModelError
from builder.lora import arrays, changed_modules, places, read_adapter, read_arrays, write_prefetch
from builder.targets.tensorrt_llm.flags import LORA_MODULES

LLAMA = {
    "architecture": "LlamaForCausalLM",
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_size": 3,
    "hidden_size": 12,
    "intermediate_size": 20,
    "vocab_size": 50,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
    "attn_bias": False,
    "mlp_bias": False,
    "dtype": "float16",
    "mapping": {"world_size": 1, "tp_size": 1, "pp_size": 1},
}
GPT_NEOX = {**LLAMA, "architecture": "GPTNeoXForCausalLM", "num_key_value_heads": 4}
GPT2 = {**GPT_NEOX, "architecture": "GPT2LMHeadModel", "bias": True}
PHI3 = {**LLAMA, "architecture": "Phi3ForCausalLM", "hidden_act": "swiglu"}
LINEARS = {
    "q_proj": (12, 12),
    "k_proj": (12, 6),
    "v_proj": (12, 6),
    "o_proj": (12, 12),
    "gate_proj": (12, 20),
    "up_proj": (12, 20),
    "down_proj": (20, 12),
}
UPSTREAM = {
    "q_proj": 1,
    "k_proj": 2,
    "v_proj": 3,
    "o_proj": 4,
    "gate_proj": 5,
    "down_proj": 6,
    "up_proj": 7,
}
"""Linear → module id, by TensorRT-LLM's `hf_lora_convert.py` and `LoraManager`."""


def llama_shapes(*linears: str, layer: int = 0) -> dict[str, tuple[int, int]]:
    rooms = {
        name: "mlp" if name in ("gate_proj", "up_proj", "down_proj") else "self_attn"
        for name in linears
    }
    return {f"model.layers.{layer}.{rooms[n]}.{n}": LINEARS[n] for n in linears}


def stored(folder: Path, name: str) -> tuple[Any, Any]:
    """The matrices A and B of a linear, read by another library."""
    tensors = load_file(folder / "adapter_model.safetensors")
    return tuple(tensors[f"base_model.model.{name}.lora_{each}.weight"] for each in "AB")


def hf_lora_convert(folder: Path, scale: float) -> dict[tuple[int, int], Any]:
    """What upstream's script puts into a row for each (module, layer): A, then the scaled B."""
    rows = {}
    for name in load_file(folder / "adapter_model.safetensors"):
        if ".lora_A." in name:
            parts = name.removeprefix("base_model.model.").split(".")
            into, out = stored(folder, ".".join(parts[:-2]))
            row = np.concatenate([into.reshape(-1), (out * scale).reshape(-1)])
            rows[UPSTREAM[parts[4]], int(parts[2])] = row.astype(np.float16)
    return rows


@pytest.mark.parametrize(
    ("fields", "scale"),
    [
        ({"lora_alpha": 8}, 4.0),
        ({"lora_alpha": 8, "use_rslora": True}, 8 / 2**0.5),
        ({"lora_alpha": 1, "alpha_pattern": {"q_proj|[a-z_]+": 6}}, 3.0),
    ],
)
def test_rows_are_those_of_hf_lora_convert(
    tmp_path: Path, fields: dict[str, Any], scale: float
) -> None:
    shapes = {**llama_shapes(*LINEARS), **llama_shapes("v_proj", "q_proj", layer=1)}
    adapter = peft_adapters.by_hand(tmp_path / "adapter", shapes, **fields)
    weights, config = arrays(read_adapter(adapter), LLAMA)
    expected = hf_lora_convert(adapter, scale)
    assert (weights.dtype, config.dtype) == (np.float16, np.int32)
    assert weights.shape == (9, max(map(len, expected.values())))
    assert {(module, layer) for module, layer, _ in config.tolist()} == set(expected)
    for row, (module, layer, rank) in zip(weights, config.tolist(), strict=True):
        wanted = expected[module, layer]
        assert rank == 2
        np.testing.assert_array_equal(row[: len(wanted)], wanted)
        assert not row[len(wanted) :].any()


def test_ranks_may_differ_between_linears(tmp_path: Path) -> None:
    one = peft_adapters.by_hand(tmp_path / "one", llama_shapes("q_proj"), r=2)
    other = peft_adapters.by_hand(tmp_path / "other", llama_shapes("o_proj"), r=3, lora_alpha=2)
    tensors = {
        name: tensor
        for folder in (one, other)
        for name, tensor in load_file(folder / "adapter_model.safetensors").items()
    }
    from safetensors.numpy import save_file

    save_file(tensors, one / "adapter_model.safetensors")
    weights, config = arrays(read_adapter(one), LLAMA)
    assert config.tolist() == [[1, 0, 2], [4, 0, 3]]
    _, out = stored(one, "model.layers.0.self_attn.o_proj")
    scaled = (out * np.float32(2 / 3)).astype(np.float16).reshape(-1)
    np.testing.assert_array_equal(weights[1, 36:72], scaled)


def test_a_fused_projection_is_put_in_the_order_of_the_checkpoint(tmp_path: Path) -> None:
    """GPT-NeoX stores each head's q, k and v side by side; an engine has all q, all k, all v."""
    name = "gpt_neox.layers.1.attention.query_key_value"
    adapter = peft_adapters.by_hand(tmp_path / "adapter", {name: (12, 36)})
    weights, config = arrays(read_adapter(adapter), GPT_NEOX)
    into, out = stored(adapter, name)
    by_kind = out.reshape(4, 3, 3, 2).transpose(1, 0, 2, 3).reshape(36, 2)
    assert config.tolist() == [[0, 1, 2]]
    np.testing.assert_array_equal(weights[0], np.concatenate([into, by_kind], axis=None))


def test_an_engine_with_q_k_and_v_apart_takes_a_fused_adapter_in_three(tmp_path: Path) -> None:
    name = "transformer.h.0.attn.c_attn"
    adapter = read_adapter(peft_adapters.by_hand(tmp_path / "adapter", {name: (12, 36)}))
    weights, config = arrays(adapter, GPT2, ["attn_q", "attn_k", "attn_v"])
    into, out = stored(tmp_path / "adapter", name)
    assert config.tolist() == [[1, 0, 2], [2, 0, 2], [3, 0, 2]]
    for row, part in zip(weights, np.split(out, 3), strict=True):
        np.testing.assert_array_equal(row, np.concatenate([into, part], axis=None))


def test_gate_and_up_in_one_are_two_modules(tmp_path: Path) -> None:
    """Stored gate first; TensorRT-LLM calls the activated half mlp_h_to_4h, the other mlp_gate."""
    name = "model.layers.0.mlp.gate_up_proj"
    adapter = peft_adapters.by_hand(tmp_path / "adapter", {name: (12, 40)})
    weights, config = arrays(read_adapter(adapter), PHI3)
    into, out = stored(adapter, name)
    assert config.tolist() == [[5, 0, 2], [7, 0, 2]]
    for row, part in zip(weights, (out[:20], out[20:]), strict=True):
        np.testing.assert_array_equal(row, np.concatenate([into, part], axis=None))


@pytest.mark.parametrize(("ranks", "times"), [(2, 1), (4, 2)])
def test_tensor_ranks_cut_their_heads_out_of_a_fused_projection(
    tmp_path: Path, ranks: int, times: int
) -> None:
    """A rank takes an equal piece: its heads of q, then of k, then of v (LoraManager's order)."""
    config = {**PHI3, "mapping": {"world_size": ranks, "tp_size": ranks, "pp_size": 1}}
    name = "model.layers.0.self_attn.qkv_proj"
    adapter = peft_adapters.by_hand(tmp_path / "adapter", {name: (12, 24)})
    weights, _ = arrays(read_adapter(adapter), config)
    _, out = stored(adapter, name)
    kinds = [out[:12].reshape(4, 3, 2), *(each.reshape(2, 3, 2) for each in np.split(out[12:], 2))]
    kinds[1:] = [each.repeat(times, axis=0) for each in kinds[1:]]
    pieces = weights[0, 24:].reshape(ranks, -1)
    for rank, piece in enumerate(pieces):
        own = [np.split(each, ranks)[rank] for each in kinds]
        np.testing.assert_array_equal(piece, np.concatenate(own, axis=None))


def test_the_modules_that_adapters_change_are_told_by_the_model(tmp_path: Path) -> None:
    q = read_adapter(peft_adapters.by_hand(tmp_path / "q", llama_shapes("q_proj")))
    down = read_adapter(peft_adapters.by_hand(tmp_path / "down", llama_shapes("down_proj")))
    assert changed_modules([down, q], LLAMA) == ("attn_q", "attn_k", "attn_v", "mlp_4h_to_h")
    assert changed_modules([down], LLAMA) == ("mlp_4h_to_h",)


def test_every_place_is_a_module_of_upstreams() -> None:
    for config in (LLAMA, GPT_NEOX, GPT2, PHI3):
        assert {place.module for place in places(config)} <= LORA_MODULES.keys()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"peft_type": "LOHA"}, "only LoRA.*peft_type 'LOHA'"),
        ({"use_dora": True}, "DoRA.*use_dora True.*merge_and_unload"),
        ({"bias": "all"}, "biases.*bias 'all'"),
        ({"lora_bias": True}, "lora_bias True"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save \['lm_head'\]"),
        ({"init_lora_weights": "pissa_niter_16"}, "init_lora_weights 'pissa_niter_16'"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
        ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens"),
        ({"lora_alpha": None}, "lora_alpha None"),
    ],
)
def test_what_an_engine_cannot_add_is_refused_by_its_field(
    tmp_path: Path, fields: dict[str, Any], says: str
) -> None:
    folder = peft_adapters.by_hand(tmp_path / "adapter", llama_shapes("q_proj"), **fields)
    with pytest.raises(ModelError, match=says):
        read_adapter(folder)


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        ({"model.embed_tokens": (12, 50)}, "no adapter of.*model.embed_tokens"),
        ({"model.layers.2.self_attn.q_proj": (12, 12)}, "layers.2.self_attn.q_proj"),
        ({"model.layers.0.self_attn.q_proj": (12, 16)}, "another model's.*16 outputs"),
        ({"model.layers.0.mlp.down_proj": (12, 12)}, "another model's.*12 inputs.*20"),
    ],
)
def test_what_the_model_does_not_have_is_refused_by_name(
    tmp_path: Path, shapes: dict[str, tuple[int, int]], says: str
) -> None:
    adapter = read_adapter(peft_adapters.by_hand(tmp_path / "adapter", shapes))
    with pytest.raises(ModelError, match=says):
        arrays(adapter, LLAMA)


def test_a_module_that_the_engine_was_not_built_for_is_refused(tmp_path: Path) -> None:
    adapter = read_adapter(peft_adapters.by_hand(tmp_path / "adapter", llama_shapes("o_proj")))
    with pytest.raises(ModelError, match=r"o_proj \(attn_dense\) where its .* attn_q; build it"):
        arrays(adapter, LLAMA, ["attn_q"])


def test_numbers_beyond_float16_are_refused(tmp_path: Path) -> None:
    folder = peft_adapters.by_hand(tmp_path / "a", llama_shapes("q_proj"), lora_alpha=1e6)
    with pytest.raises(ModelError, match="float16"):
        arrays(read_adapter(folder), LLAMA)


def test_a_pickled_adapter_is_refused_with_what_to_do(tmp_path: Path) -> None:
    folder = peft_adapters.by_hand(tmp_path / "adapter", llama_shapes("q_proj"))
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"adapter_model\.bin.*save_pretrained"):
        read_adapter(folder)


def test_folders_that_are_no_adapters_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not a LoRA adapter"):
        read_adapter(tmp_path)
    folder = peft_adapters.by_hand(tmp_path / "adapter", llama_shapes("q_proj"))
    tensors = (folder / "adapter_model.safetensors").read_bytes()
    (folder / "adapter_model.safetensors").write_bytes(tensors[:-8])
    with pytest.raises(CorruptFileError, match="truncated"):
        read_adapter(folder)


def test_half_a_pair_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    folder = peft_adapters.by_hand(tmp_path / "adapter", llama_shapes("q_proj"))
    tensors = load_file(folder / "adapter_model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if "lora_A" in name}
    save_file(kept, folder / "adapter_model.safetensors")
    with pytest.raises(ModelError, match=r"no lora_B of model\.layers\.0\.self_attn\.q_proj"):
        read_adapter(folder)


def test_the_files_are_where_upstream_prefetches_them(tmp_path: Path) -> None:
    adapter = read_adapter(peft_adapters.by_hand(tmp_path / "a", llama_shapes("q_proj", "o_proj")))
    write_prefetch(tmp_path / "lora", {1: adapter, 12: adapter}, LLAMA)
    weights, config = arrays(adapter, LLAMA)
    assert sorted(path.name for path in (tmp_path / "lora").iterdir()) == ["1", "12"]
    own = tmp_path / "lora/12"
    np.testing.assert_array_equal(np.load(own / "model.lora_weights.npy"), weights[None])
    np.testing.assert_array_equal(np.load(own / "model.lora_config.npy"), config[None])
    found = read_arrays(own)
    np.testing.assert_array_equal(found[0], weights)
    np.testing.assert_array_equal(found[1], config)


@pytest.mark.reference
def test_an_adapter_that_peft_saved_is_read(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    folder = peft_adapters.write(
        tmp_path / "adapter", tiny_models["llama"], ["q_proj", "down_proj"], r=4, use_rslora=True
    )
    adapter = read_adapter(folder)
    assert adapter.rank == 4
    assert {change.scale for change in adapter.changes.values()} == {4.0}
    assert json.loads((folder / "adapter_config.json").read_text())["lora_alpha"] == 8
    assert set(adapter.changes) == {
        f"model.layers.{layer}.{name}"
        for layer in (0, 1)
        for name in ("self_attn.q_proj", "mlp.down_proj")
    }
