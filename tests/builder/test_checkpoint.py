"""A checkpoint is opened with its manifest or without, and damage is found and named."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_files import write_safetensors

from builder import manifest
from builder.checkpoint import Checkpoint
from builder.checkpoint_check import check
from builder.convert import convert
from builder.dtypes import NUMPY, Array, all_finite
from builder.errors import ArtifactError, TrtbuildError


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    convert(tiny_folder, tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def arrays(folder: Path) -> dict[str, Array]:
    return {name: t.numpy().copy() for name, t in Checkpoint.open(folder).tensors().items()}


def test_a_whole_one_passes_and_says_what_it_is(folder: Path) -> None:
    checkpoint = Checkpoint.open(folder)
    assert checkpoint.world_size == 1
    assert checkpoint.quant_algo is None
    assert len(checkpoint.tensors()) == 17
    seen: list[tuple[int, int]] = []
    check(folder, lambda done, total: seen.append((done, total)))
    size_bytes = sum(tensor.nbytes for tensor in checkpoint.tensors().values())
    assert seen[-1] == (size_bytes, size_bytes)


def test_one_without_our_manifest_is_a_checkpoint_too(folder: Path) -> None:
    (folder / manifest.NAME).unlink()
    check(folder)


@pytest.mark.parametrize("name", ["rank0.safetensors", "tokenizer.json", "config.json"])
def test_a_changed_byte_is_found(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[-2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=name):
        check(folder)


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ArtifactError, match=r"no tokenizer\.json"):
        check(folder)
    (folder / "rank0.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"not a whole checkpoint; found no rank0"):
        Checkpoint.open(folder)


def test_every_rank_of_the_mapping_must_be_there(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["mapping"] = {"world_size": 2, "tp_size": 2, "pp_size": 1}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ArtifactError, match=r"no rank1\.safetensors"):
        Checkpoint.open(folder)


def test_a_truncated_rank_is_an_error_of_the_checkpoint(folder: Path) -> None:
    file = folder / "rank0.safetensors"
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(ArtifactError, match=r"truncated.*make the checkpoint again"):
        Checkpoint.open(folder).tensors()


@pytest.mark.parametrize(
    ("content", "said"),
    [("{", "can't be read"), ("[]", "no field architecture"), ('{"model_type": "x"}', "no field")],
)
def test_a_config_that_is_not_a_checkpoints_is_refused(
    folder: Path, content: str, said: str
) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(ArtifactError, match=said):
        Checkpoint.open(folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mapping": {"cp_size": "two"}}, r"mapping\.cp_size must be a positive whole number"),
        ({"mapping": {"moe_ep_size": 1.5}}, r"mapping\.moe_ep_size must be a whole number"),
        ({"mapping": {"moe_ep_size": 3}}, "expert-parallel ranks"),
        ({"moe": [8]}, "moe must be an object"),
        ({"embedding_sharding_dim": "0"}, "embedding_sharding_dim must be a whole number"),
        ({"architecture": "MixtralForCausalLM"}, r"a whole number moe\.num_experts; found None"),
        ({"architecture": "DeepseekForCausalLM", "moe": {"num_experts": 2}}, "whole number"),
    ],
)
def test_a_config_that_cannot_be_is_told_in_a_line(
    folder: Path, changes: dict[str, Any], said: str
) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    (folder / "trtbuild.json").unlink()
    with pytest.raises(TrtbuildError, match=said):
        check(folder)


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such folder"):
        Checkpoint.open(tmp_path / "absent")
    with pytest.raises(ArtifactError, match=r"no config\.json"):
        Checkpoint.open(tmp_path)


def test_tensors_that_do_not_fit_the_family_are_named(folder: Path) -> None:
    (folder / manifest.NAME).unlink()
    whole = arrays(folder)
    file = folder / "rank0.safetensors"
    write_safetensors(file, {n: a for n, a in whole.items() if "ln_f" not in n})
    with pytest.raises(ArtifactError, match=r"lacks tensors; found transformer\.ln_f\.weight"):
        check(folder)
    write_safetensors(file, {**whole, "extra": np.zeros(1, np.float32)})
    with pytest.raises(ArtifactError, match="tensors too many; found extra"):
        check(folder)
    write_safetensors(file, {**whole, "lm_head.weight": np.zeros((2, 2), np.float32)})
    with pytest.raises(ArtifactError, match=r"lm_head\.weight float32 \[2, 2\], expected bfloat"):
        check(folder)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_numbers_that_are_none_are_found(folder: Path, number: float) -> None:
    (folder / manifest.NAME).unlink()
    whole = arrays(folder)
    whole["lm_head.weight"][3, 5] = number
    write_safetensors(folder / "rank0.safetensors", whole)
    with pytest.raises(ArtifactError, match=r"lm_head\.weight has NaN or infinite"):
        check(folder)


def test_one_of_a_quantization_that_is_not_known_may_have_scales_but_no_fewer_tensors(
    folder: Path,
) -> None:
    (folder / manifest.NAME).unlink()
    config = json.loads((folder / "config.json").read_text())
    config["quantization"]["quant_algo"] = "W8A8_SQ_PER_TENSOR_PLUGIN"
    (folder / "config.json").write_text(json.dumps(config))
    name = "transformer.layers.0.mlp.fc"
    whole = arrays(folder) | {
        f"{name}.weight": np.zeros((96, 64), np.int8),
        f"{name}.weights_scaling_factor": np.ones(96, np.float32),
    }
    write_safetensors(folder / "rank0.safetensors", whole)
    check(folder)
    assert Checkpoint.open(folder).quant_algo == "W8A8_SQ_PER_TENSOR_PLUGIN"
    whole.pop(f"{name}.weight")
    write_safetensors(folder / "rank0.safetensors", whole)
    with pytest.raises(ArtifactError, match=f"lacks tensors; found {name}"):
        check(folder)


def test_a_checkpoint_of_an_earlier_version_is_checked_by_its_own_digests(folder: Path) -> None:
    path = folder / manifest.NAME
    fields = json.loads(path.read_text())
    fields["format"] = 1
    fields["files"] = {
        name: {
            "size_bytes": entry["size_bytes"],
            "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest(),
        }
        for name, entry in fields["files"].items()
    }
    path.write_text(json.dumps(fields))
    check(folder)
    weights = folder / "rank0.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ArtifactError, match=r"rank0\.safetensors has changed.*another digest"):
        check(folder)


def test_a_digest_of_an_unknown_algorithm_is_refused(folder: Path) -> None:
    path = folder / manifest.NAME
    path.write_text(path.read_text().replace("xxh3_128:", "md4:"))
    with pytest.raises(ArtifactError, match="not one of xxh3_128, sha256: 'md4:"):
        check(folder)


def test_what_is_not_finite_is_found_in_every_float() -> None:
    for dtype in ("float16", "bfloat16", "float32"):
        numbers = np.array([0, -1, 65504], np.float32).astype(NUMPY[dtype])
        assert all_finite(numbers)
        for bad in (np.nan, -np.nan, np.inf, -np.inf):
            assert not all_finite(np.append(numbers, np.array(bad, NUMPY[dtype])))
        assert all_finite(numbers[:0])
