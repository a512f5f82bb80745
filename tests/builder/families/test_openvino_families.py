"""Promise: of every family the graph computes what transformers computes, or `build` refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import classic_models
import modern_models
import moe_models
import numpy as np
import pytest
from openvino_logits import LIMITS, all_logits, reference_logits, relative_error

from builder.convert import ConvertOptions, convert
from builder.errors import ArtifactError
from builder.families import FAMILIES
from builder.targets.openvino import build
from builder.targets.openvino_needs import ARCHITECTURES, HIDDEN_ACTS

SAVE = {
    **dict.fromkeys(classic_models.TINY, classic_models.save),
    **dict.fromkeys(modern_models.TINY, modern_models.save),
    **dict.fromkeys(moe_models.TINY, moe_models.save),
}
"""Model → what writes it."""
CAPPED = "gemma2"
LONG = {"phi3_long": 128, "phi_moe_long": 64}
"""Model → its original context, which the target doesn't leave."""
PROMPT_TOKENS = 60


def engine_of(name: str, tokenizer: Path, folder: Path, dtype: str = "float32") -> Path:
    """The engine of a tiny model; the model itself is in `folder`/model."""
    model = SAVE[name](folder / "model", name, tokenizer)
    convert(model, folder / "checkpoint", options=ConvertOptions(dtype=dtype))
    limits = replace(LIMITS, max_seq_len=LONG.get(name))
    build(folder / "checkpoint", folder / "engine", options=limits)
    return folder / "engine"


def prompt() -> list[int]:
    return np.random.default_rng(5).integers(3, 384, size=PROMPT_TOKENS).tolist()


@pytest.mark.reference
@pytest.mark.parametrize("name", [name for name in SAVE if name != CAPPED])
def test_logits_are_those_of_transformers(name: str, tiny_tokenizer: Path, tmp_path: Path) -> None:
    engine, ids = engine_of(name, tiny_tokenizer, tmp_path), prompt()
    expected = reference_logits(tmp_path / "model", ids)
    for chunk in (PROMPT_TOKENS, 24):
        found = all_logits(engine, ids, chunk)
        assert relative_error(found, expected) < 1e-3, chunk


@pytest.mark.reference
def test_logits_of_deepseek_are_those_of_its_twin(tiny_tokenizer: Path, tmp_path: Path) -> None:
    model = moe_models.save_deepseek(tmp_path / "model", tiny_tokenizer)
    convert(model, tmp_path / "checkpoint", options=ConvertOptions(dtype="float32"))
    build(tmp_path / "checkpoint", tmp_path / "engine", options=LIMITS)
    expected = reference_logits(model / "twin", prompt())
    assert relative_error(all_logits(tmp_path / "engine", prompt(), 24), expected) < 1e-3


def test_capped_scores_are_refused(tiny_tokenizer: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"can't cap the scores.*softcapping 5\.0"):
        engine_of(CAPPED, tiny_tokenizer, tmp_path)


@pytest.mark.parametrize("name", LONG)
def test_long_rope_is_refused_beyond_the_original_context(
    name: str, tiny_tokenizer: Path, tmp_path: Path
) -> None:
    model = SAVE[name](tmp_path / "model", name, tiny_tokenizer)
    convert(model, tmp_path / "checkpoint", options=ConvertOptions(dtype="float32"))
    with pytest.raises(ArtifactError, match=f"--max-seq-len {LONG[name]}"):
        build(tmp_path / "checkpoint", tmp_path / "engine", options=LIMITS)


@pytest.mark.parametrize(("name", "layers"), [("starcoder2_window", {0, 1}), ("gemma3", {0, 1, 3})])
def test_paged_attention_is_given_the_windows(
    name: str, layers: set[int], tiny_tokenizer: Path, tmp_path: Path
) -> None:
    found = _paged(engine_of(name, tiny_tokenizer, tmp_path), _WINDOW)
    assert {
        layer for layer, node in enumerate(found) if node.get_type_name() != "Constant"
    } == layers


@pytest.mark.parametrize("name", ["bloom", "mpt", "falcon_rw"])
def test_paged_attention_is_given_the_slopes(
    name: str, tiny_tokenizer: Path, tmp_path: Path
) -> None:
    engine = engine_of(name, tiny_tokenizer, tmp_path)
    found = _paged(engine, _SLOPES)
    config = json.loads((engine / "config.json").read_text())["pretrained_config"]
    heads = config["num_attention_heads"]
    assert [list(node.output(0).shape) for node in found] == [[heads]] * 2


_WINDOW, _SLOPES = 10, 11
"""Inputs of OpenVINO's PagedAttentionExtension."""


def _paged(engine: Path, port: int) -> list[Any]:
    """What each layer's paged attention has at an input."""
    import openvino
    from openvino._offline_transformations import paged_attention_transformation

    model = openvino.Core().read_model(engine / "openvino_model.xml")
    paged_attention_transformation(model)
    nodes = [
        node
        for node in model.get_ordered_ops()
        if node.get_type_name() == "PagedAttentionExtension"
    ]
    return [node.input_value(port).get_node() for node in nodes]


@pytest.mark.parametrize(
    "name", ["gptj", "gpt_neox", "falcon_40b", "phi3_long", "gemma3", "cohere_norm", "glm", "dbrx"]
)
def test_rotations_are_fused(name: str, tiny_tokenizer: Path, tmp_path: Path) -> None:
    """An engine in bfloat16 computes angles in float32 only for rotations that it has fused."""
    kinds = _compiled(engine_of(name, tiny_tokenizer, tmp_path))
    assert kinds.count("RoPE") == kinds.count("PagedAttention") * 2 > 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_only_the_chosen_experts_are_computed(
    dtype: str, tiny_tokenizer: Path, tmp_path: Path
) -> None:
    kinds = _compiled(engine_of("mixtral", tiny_tokenizer, tmp_path, dtype))
    assert kinds.count("GatherMatmul") == 2 * 3
    assert "Tile" not in kinds


def _compiled(engine: Path) -> list[str]:
    """The operations that the plugin makes of the paged graph."""
    import openvino
    from openvino._offline_transformations import paged_attention_transformation

    model = openvino.Core().read_model(engine / "openvino_model.xml")
    paged_attention_transformation(model)
    compiled = openvino.Core().compile_model(model, "CPU")
    return [node.get_rt_info()["layerType"] for node in compiled.get_runtime_model().get_ops()]


def test_every_family_is_run_or_refused_on_purpose() -> None:
    decoders = {name for name, family in FAMILIES.items() if not family.encoder}
    assert {*decoders, "PhiMoEForCausalLM"} - ARCHITECTURES == {
        "GlmForCausalLM",  # the checkpoint says ChatGLMForCausalLM
        "PhimoeForCausalLM",  # PhiMoEForCausalLM
        "RWForCausalLM",  # FalconForCausalLM
    }


def test_every_activation_that_is_accepted_is_known() -> None:
    from builder.targets.openvino_mlp import ACTIVATIONS

    assert ACTIVATIONS.keys() == HIDDEN_ACTS
