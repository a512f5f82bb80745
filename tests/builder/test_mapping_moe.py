"""Promise: each rank has the experts, and of each expert the slice, that TensorRT-LLM looks for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_files import write_safetensors

from builder.checkpoint import Checkpoint
from builder.checkpoint_check import check
from builder.convert import ConvertOptions, convert
from builder.dtypes import NUMPY, Array
from builder.errors import LimitError

EXPERTS, HIDDEN, INNER = 4, 32, 24
MIXTRAL: dict[str, Any] = {
    "architectures": ["MixtralForCausalLM"],
    "vocab_size": 384,
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "num_local_experts": EXPERTS,
    "num_experts_per_tok": 2,
    "torch_dtype": "bfloat16",
}
_LAYER = "model.layers.0."
SHAPES = {
    "model.embed_tokens.weight": (384, HIDDEN),
    "lm_head.weight": (384, HIDDEN),
    "model.norm.weight": (HIDDEN,),
    _LAYER + "input_layernorm.weight": (HIDDEN,),
    _LAYER + "post_attention_layernorm.weight": (HIDDEN,),
    **{_LAYER + f"self_attn.{name}_proj.weight": (HIDDEN, HIDDEN) for name in "qkvo"},
    _LAYER + "block_sparse_moe.gate.weight": (EXPERTS, HIDDEN),
    **{
        _LAYER + f"block_sparse_moe.experts.{expert}.{name}.weight": shape
        for expert in range(EXPERTS)
        for name, shape in (
            ("w1", (INNER, HIDDEN)),
            ("w2", (HIDDEN, INNER)),
            ("w3", (INNER, HIDDEN)),
        )
    },
}


@pytest.fixture(scope="module")
def weights() -> dict[str, Array]:
    rng = np.random.default_rng(5)
    return {
        name: rng.standard_normal(shape, np.float32).astype(NUMPY["bfloat16"])
        for name, shape in SHAPES.items()
    }


@pytest.fixture
def mixtral(tmp_path: Path, weights: dict[str, Array], tiny_tokenizer: Path) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(tiny_tokenizer, folder)
    (folder / "config.json").write_text(json.dumps(MIXTRAL))
    write_safetensors(folder / "model.safetensors", weights)
    return folder


def ranks_of(folder: Path, out: Path, **layout: Any) -> list[dict[str, Array]]:
    convert(folder, out, options=ConvertOptions(**layout))
    check(out)
    checkpoint = Checkpoint.open(out)
    files = layout.get("tp", 1) * layout.get("pp", 1)
    assert len(list(out.glob("rank*.safetensors"))) == files
    return [
        {name: tensor.numpy() for name, tensor in checkpoint.tensors(rank).items()}
        for rank in range(files)
    ]


@pytest.mark.parametrize(
    ("moe_tp", "moe_ep", "experts", "slices"),
    [
        (4, 1, [range(4)] * 4, [0, 1, 2, 3]),
        (1, 4, [range(1), range(1, 2), range(2, 3), range(3, 4)], [0, 0, 0, 0]),
        # expert ranks are neighbours: tensor rank = expert-tensor rank * 2 + expert rank
        (2, 2, [range(2), range(2, 4), range(2), range(2, 4)], [0, 0, 1, 1]),
    ],
)
def test_a_rank_has_its_slice_of_its_experts(
    mixtral: Path,
    weights: dict[str, Array],
    tmp_path: Path,
    moe_tp: int,
    moe_ep: int,
    experts: list[range],
    slices: list[int],
) -> None:
    each = INNER // moe_tp
    for rank, tensors in enumerate(ranks_of(mixtral, tmp_path / "out", tp=4, moe_ep=moe_ep)):
        cut = slice(slices[rank] * each, (slices[rank] + 1) * each)
        fc, proj = [], []
        for expert in experts[rank]:
            gate, down, up = (
                weights[_LAYER + f"block_sparse_moe.experts.{expert}.w{n}.weight"]
                for n in (1, 2, 3)
            )
            fc.append(np.concatenate([up[cut], gate[cut]]))
            proj.append(down[:, cut])
        mlp = "transformer.layers.0.mlp."
        assert tensors[mlp + "fc.weight"].tobytes() == np.stack(fc).tobytes(), rank
        assert tensors[mlp + "fc.weight"].shape == (len(fc), 2 * each, HIDDEN)
        assert tensors[mlp + "proj.weight"].tobytes() == np.stack(proj).tobytes(), rank
        assert tensors[mlp + "proj.weight"].shape == (len(proj), HIDDEN, each)


@pytest.mark.parametrize("layout", [{}, {"tp": 2}, {"tp": 4, "moe_ep": 2}])
def test_every_rank_has_the_whole_router_in_float32(
    mixtral: Path, weights: dict[str, Array], tmp_path: Path, layout: dict[str, int]
) -> None:
    whole = weights[_LAYER + "block_sparse_moe.gate.weight"].astype(np.float32)
    for tensors in ranks_of(mixtral, tmp_path / "out", **layout):
        router = tensors["transformer.layers.0.mlp.router.weight"]
        assert router.dtype == np.float32
        assert router.tobytes() == whole.tobytes()


def test_the_mapping_says_how_the_experts_are_divided(mixtral: Path, tmp_path: Path) -> None:
    convert(mixtral, tmp_path / "out", options=ConvertOptions(tp=4, moe_ep=2))
    assert json.loads((tmp_path / "out" / "config.json").read_text())["mapping"] == {
        "world_size": 4,
        "tp_size": 4,
        "pp_size": 1,
        "moe_tp_size": 2,
        "moe_ep_size": 2,
    }


@pytest.mark.parametrize(
    ("layout", "says"),
    [
        ({"tp": 4, "moe_ep": 3}, "3 expert-parallel ranks"),
        ({"cp": 2}, "context-parallel ranks by TensorRT-LLM; found --cp 2"),
    ],
)
def test_experts_that_cannot_be_divided_so_are_refused(
    mixtral: Path, tmp_path: Path, layout: dict[str, int], says: str
) -> None:
    with pytest.raises(LimitError, match=says):
        convert(mixtral, tmp_path / "out", options=ConvertOptions(**layout))
    assert not (tmp_path / "out").exists()


def test_a_dense_model_has_no_experts_to_divide(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(LimitError, match="without experts"):
        convert(tiny_folder, tmp_path / "out", options=ConvertOptions(tp=2, moe_ep=2))


def test_context_ranks_share_the_weights(tiny_folder: Path, tmp_path: Path) -> None:
    alone = ranks_of(tiny_folder, tmp_path / "alone", tp=2, pp=2)
    shared = ranks_of(tiny_folder, tmp_path / "shared", tp=2, pp=2, cp=2)
    for ours, theirs in zip(shared, alone, strict=True):
        assert ours.keys() == theirs.keys()
        assert all(ours[name].tobytes() == theirs[name].tobytes() for name in ours)
    assert json.loads((tmp_path / "shared" / "config.json").read_text())["mapping"] == {
        "world_size": 8,
        "tp_size": 2,
        "pp_size": 2,
        "cp_size": 2,
    }


def test_context_ranks_need_heads_to_share(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(LimitError, match="4 attention heads"):
        convert(tiny_folder, tmp_path / "out", options=ConvertOptions(tp=2, cp=4))
