"""Promise: every weight lands on the rank where TensorRT-LLM looks for it, and nowhere else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_files import write_safetensors

from builder.checkpoint import Checkpoint
from builder.checkpoint_check import check
from builder.convert import ConvertOptions, convert
from builder.dtypes import Array
from builder.errors import LimitError
from builder.mapping import Layout

LAYOUTS = [(2, 1), (4, 1), (1, 2), (2, 2), (4, 2)]
ROW_PARALLEL = ("attention.dense.weight", "mlp.proj.weight")


def converted(source: Path, out: Path, **layout: Any) -> list[dict[str, Array]]:
    """The tensors of every rank."""
    convert(source, out, options=ConvertOptions(dtype="bfloat16", **layout))
    check(out)
    checkpoint = Checkpoint.open(out)
    return [
        {name: tensor.numpy() for name, tensor in checkpoint.tensors(rank).items()}
        for rank in range(checkpoint.world_size)
    ]


def joined(ranks: list[dict[str, Array]], tp: int, config: dict[str, Any]) -> dict[str, Array]:
    """The undivided tensors, put together by what each name says of itself."""
    whole: dict[str, Array] = {}
    before = 0
    for pp_rank in range(len(ranks) // tp):
        group = ranks[pp_rank * tp : (pp_rank + 1) * tp]
        layers = {int(name.split(".")[2]) for name in group[0] if ".layers." in name}
        for name in group[0]:
            parts = [rank[name] for rank in group]
            full = name
            if ".layers." in name:
                prefix, layer, rest = name.split(".", 3)[1:]
                full = f"transformer.{prefix}.{int(layer) + before}.{rest}"
            whole[full] = join(full, parts, config)
        before += len(layers)
    return whole


def join(name: str, parts: list[Array], config: dict[str, Any]) -> Array:
    if "attention.qkv." in name:
        return join_heads(parts, config)
    if name.endswith(ROW_PARALLEL):
        return np.concatenate(parts, axis=1)
    if any(word in name for word in ("mlp.fc.", "mlp.gate.")):
        return np.concatenate(parts)
    if name == "lm_head.weight":
        joined = np.concatenate(parts)
        assert not joined[config["vocab_size"] :].any(), "the padding is zero"
        return joined[: config["vocab_size"]]
    for part in parts[1:]:
        assert part.tobytes() == parts[0].tobytes(), f"{name} is the same on every rank"
    return parts[0]


def join_heads(parts: list[Array], config: dict[str, Any]) -> Array:
    tp, size = len(parts), config["head_size"]
    heads = config["num_attention_heads"] // tp
    kv_heads = max(1, config["num_key_value_heads"] // tp)
    copies = max(1, tp // config["num_key_value_heads"])
    rows = [heads * size, (heads + kv_heads) * size]
    queries, keys, values = zip(*(np.split(part, rows) for part in parts), strict=True)
    for shared in (keys, values):
        for index, part in enumerate(shared):
            assert part.tobytes() == shared[index - index % copies].tobytes()
    return np.concatenate([*queries, *keys[::copies], *values[::copies]])


@pytest.mark.parametrize(("tp", "pp"), LAYOUTS)
@pytest.mark.parametrize("name", ["llama", "llama_tied", "llama_bias", "mistral", "qwen2", "qwen3"])
def test_the_ranks_together_are_the_undivided_checkpoint(
    tiny_models: dict[str, Path], tmp_path: Path, name: str, tp: int, pp: int
) -> None:
    [whole] = converted(tiny_models[name], tmp_path / "whole")
    config = Checkpoint.open(tmp_path / "whole").config
    ranks = converted(tiny_models[name], tmp_path / "ranks", tp=tp, pp=pp)
    assert len(ranks) == tp * pp
    together = joined(ranks, tp, config)
    assert together.keys() == whole.keys()
    for tensor, array in whole.items():
        assert together[tensor].shape == array.shape
        assert together[tensor].tobytes() == array.tobytes(), tensor


@pytest.mark.reference
@pytest.mark.parametrize(("tp", "pp"), [(2, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("name", ["llama", "llama_bias", "mistral", "qwen2", "qwen3"])
def test_every_rank_is_the_one_that_modelopt_exports(
    tiny_models: dict[str, Path], tmp_path: Path, name: str, tp: int, pp: int
) -> None:
    from modelopt_export import export

    export(tiny_models[name], tmp_path / "reference", "bfloat16", tp=tp, pp=pp)
    ranks = converted(tiny_models[name], tmp_path / "ours", tp=tp, pp=pp, parallel_embedding=True)
    reference = Checkpoint.open(tmp_path / "reference")
    for rank, ours in enumerate(ranks):
        theirs = {n: tensor.numpy() for n, tensor in reference.tensors(rank).items()}
        assert ours.keys() == theirs.keys()
        for tensor, array in ours.items():
            assert array.shape == theirs[tensor].shape, tensor
            assert array.tobytes() == theirs[tensor].tobytes(), (rank, tensor)


def test_a_vocabulary_that_does_not_divide_is_padded_with_zero_rows(
    tiny_folder: Path, tiny_weights: dict[str, Array], tmp_path: Path
) -> None:
    fields = json.loads((tiny_folder / "config.json").read_text())
    vocab = fields["vocab_size"] - 1
    (tiny_folder / "config.json").write_text(json.dumps({**fields, "vocab_size": vocab}))
    cut = {
        name: array[:vocab] if name in ("lm_head.weight", "model.embed_tokens.weight") else array
        for name, array in tiny_weights.items()
    }
    write_safetensors(tiny_folder / "model.safetensors", cut)
    ranks = converted(tiny_folder, tmp_path / "out", tp=2, parallel_embedding=True)
    each = -(-vocab // 2)
    for name in ("lm_head.weight", "transformer.vocab_embedding.weight"):
        assert [rank[name].shape[0] for rank in ranks] == [each, each]
        assert not ranks[1][name][vocab - each :].any()
        source = "lm_head.weight" if name == "lm_head.weight" else "model.embed_tokens.weight"
        together = np.concatenate([rank[name] for rank in ranks])[:vocab]
        assert together.tobytes() == cut[source].tobytes()


@pytest.mark.parametrize("gpus_per_node", [2, 8])
def test_a_layout_is_read_back_as_it_was_written(
    tiny_models: dict[str, Path], tmp_path: Path, gpus_per_node: int
) -> None:
    options = ConvertOptions(tp=2, pp=2, gpus_per_node=gpus_per_node)
    convert(tiny_models["llama"], tmp_path / "out", options=options)
    mapping = json.loads((tmp_path / "out" / "config.json").read_text())["mapping"]
    assert mapping.get("gpus_per_node", 8) == gpus_per_node
    assert Checkpoint.open(tmp_path / "out").layout == options.layout


def test_layers_that_do_not_divide_go_to_the_first_ranks() -> None:
    layout = Layout(pp=3)
    assert [list(layout.layers(rank, 8)) for rank in range(3)] == [[0, 1, 2], [3, 4, 5], [6, 7]]


def test_a_rank_has_only_its_ends_of_the_model(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    first, last = converted(tiny_models["llama"], tmp_path / "out", pp=2)
    assert "transformer.vocab_embedding.weight" in first
    assert not {"transformer.ln_f.weight", "lm_head.weight"} & first.keys()
    assert "transformer.vocab_embedding.weight" not in last
    assert {"transformer.ln_f.weight", "lm_head.weight"} <= last.keys()


@pytest.mark.parametrize(
    ("layout", "says"),
    [({"tp": 3}, "4 attention heads"), ({"pp": 5}, "2 layers"), ({"tp": 8}, "4 attention heads")],
)
def test_a_model_that_cannot_be_divided_so_is_refused(
    tiny_models: dict[str, Path], tmp_path: Path, layout: dict[str, int], says: str
) -> None:
    with pytest.raises(LimitError, match=says):
        convert(tiny_models["llama"], tmp_path / "out", options=ConvertOptions(**layout))
    assert not (tmp_path / "out").exists()


def test_a_gguf_divides_like_any_other(smollm2_gguf: Path, tmp_path: Path) -> None:
    [whole] = converted(smollm2_gguf, tmp_path / "whole")
    config = Checkpoint.open(tmp_path / "whole").config
    together = joined(converted(smollm2_gguf, tmp_path / "ranks", tp=3, pp=4), 3, config)
    assert together.keys() == whole.keys()
    assert all(together[name].tobytes() == array.tobytes() for name, array in whole.items())
