"""Promise: the graph built from a checkpoint computes what the source model computes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openvino_logits import LIMITS, all_logits, reference_logits, relative_error

from builder.convert import ConvertOptions, convert
from builder.digest import of as digest_of
from builder.errors import ArtifactError, LimitError
from builder.limits import LimitOptions
from builder.targets.openvino import MODEL_FILES, build

FAMILIES = ("llama", "llama_tied", "llama_bias", "llama_rope", "mistral", "qwen2", "qwen3")
RNG = np.random.default_rng(3)


@pytest.fixture
def checkpoint(tiny_models: dict[str, Path], tmp_path: Path) -> Path:
    """A float32 checkpoint of one's own."""
    folder = tmp_path / "checkpoint"
    convert(tiny_models["llama"], folder, options=ConvertOptions(dtype="float32"))
    return folder


@pytest.mark.reference
@pytest.mark.parametrize("chunk", [80, 24], ids=["whole", "chunked"])
@pytest.mark.parametrize("name", FAMILIES)
def test_logits_are_those_of_transformers(
    tiny_models: dict[str, Path], tmp_path: Path, name: str, chunk: int
) -> None:
    convert(tiny_models[name], tmp_path / "checkpoint", options=ConvertOptions(dtype="float32"))
    build(tmp_path / "checkpoint", tmp_path / "engine", options=LIMITS)
    ids = RNG.integers(3, 384, size=80).tolist()
    expected = reference_logits(tiny_models[name], ids)
    found = all_logits(tmp_path / "engine", ids, chunk)
    assert relative_error(found, expected) < 1e-3


def test_a_tied_head_is_stored_once(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    sizes = {}
    for name in ("llama", "llama_tied"):
        convert(tiny_models[name], tmp_path / name, options=ConvertOptions(dtype="float32"))
        build(tmp_path / name, tmp_path / f"{name}.engine", options=LIMITS)
        sizes[name] = (tmp_path / f"{name}.engine" / MODEL_FILES[1]).stat().st_size
    assert sizes["llama"] - sizes["llama_tied"] == 384 * 128 * 4


def test_weights_keep_their_stored_dtype(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    sizes = {}
    for dtype in ("float32", "bfloat16", "float16"):
        convert(tiny_models["llama"], tmp_path / dtype, options=ConvertOptions(dtype=dtype))
        build(tmp_path / dtype, tmp_path / f"{dtype}.engine", options=LIMITS)
        sizes[dtype] = (tmp_path / f"{dtype}.engine" / MODEL_FILES[1]).stat().st_size
    assert sizes["bfloat16"] == sizes["float16"] == pytest.approx(sizes["float32"] / 2, rel=0.01)


def test_the_same_checkpoint_gives_the_same_bytes(checkpoint: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        build(checkpoint, tmp_path / name, options=LIMITS)
    for file in sorted((tmp_path / "one").iterdir()):
        assert digest_of(file) == digest_of(tmp_path / "two" / file.name), file.name


def test_a_finished_engine_is_kept_and_other_limits_make_another(
    checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "engine"
    build(checkpoint, out, options=LIMITS)
    before = (out / MODEL_FILES[1]).stat().st_ino
    build(checkpoint, out, options=LIMITS)
    assert (out / MODEL_FILES[1]).stat().st_ino == before
    build(checkpoint, out, options=LimitOptions(max_batch_size=4, kv_cache_gib=0.05))
    assert (out / MODEL_FILES[1]).stat().st_ino != before
    assert json.loads((out / "config.json").read_text())["build_config"]["max_batch_size"] == 4


def test_the_tokenizer_travels_with_the_engine(checkpoint: Path, tmp_path: Path) -> None:
    build(checkpoint, tmp_path / "engine", options=LIMITS)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (tmp_path / "engine" / name).read_bytes() == (checkpoint / name).read_bytes()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"architecture": "LlamaForSequenceClassification"}, "architecture 'LlamaForSeq"),
        ({"rotary_scaling": {"rope_type": "mrope"}}, "rotary_scaling.*mrope"),
        ({"quantization": {"quant_algo": "NVFP4"}}, "quant_algo NVFP4"),
        ({"mapping": {"world_size": 1, "tp_size": 1}, "hidden_act": "geglu"}, "hidden_act 'geglu'"),
        ({"position_embedding_type": "relative"}, "position_embedding_type 'relative'"),
        ({"position_embedding_type": "learned_absolute"}, "positions contradict its tensors"),
        ({"attn_logit_softcapping": 50.0}, "can't cap the scores.*attn_logit_softcapping 50.0"),
        ({"moe": {"num_experts": 4, "normalization_mode": 3}}, "normalization_mode': 3"),
        ({"residual_mlp": True}, "residual_mlp True"),
    ],
)
def test_what_the_graph_cannot_express_is_refused_by_name(
    checkpoint: Path, tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(ArtifactError, match=says):
        build(checkpoint, tmp_path / "engine", options=LIMITS)
    assert not (tmp_path / "engine").exists()


def test_two_ranks_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    config["mapping"] = {"world_size": 2, "tp_size": 2, "pp_size": 1}
    (checkpoint / "config.json").write_text(json.dumps(config))
    shutil.copyfile(checkpoint / "rank0.safetensors", checkpoint / "rank1.safetensors")
    with pytest.raises(ArtifactError, match="world size 2"):
        build(checkpoint, tmp_path / "engine", options=LIMITS)


def test_limits_that_cannot_hold_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(LimitError, match="--max-seq-len 4096 is beyond"):
        build(checkpoint, tmp_path / "engine", options=LimitOptions(max_seq_len=4096))


@pytest.mark.reference
def test_a_checkpoint_of_modelopt_builds_too(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    from modelopt_export import export

    export(tiny_models["llama"], tmp_path / "modelopt", "bfloat16")
    build(tmp_path / "modelopt", tmp_path / "engine", options=LIMITS)
    assert (tmp_path / "engine" / MODEL_FILES[0]).is_file()
