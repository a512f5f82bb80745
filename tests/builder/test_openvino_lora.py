"""Promise: an engine built for adapters takes them; one that wasn't is what it always was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openvino as ov
import peft_adapters
import pytest
from openvino_logits import LIMITS

from builder.checkpoint import Checkpoint
from builder.convert import ConvertOptions, convert
from builder.errors import LimitError, ModelError
from builder.limits import LimitOptions, plan
from builder.targets import openvino
from builder.targets.openvino import EngineOptions, engine_config
from builder.targets.openvino_graph import build_graph

QUERY = {f"model.layers.{layer}.self_attn.q_proj": (128, 128) for layer in (0, 1)}
DOWN = {"model.layers.1.mlp.down_proj": (256, 128)}


@pytest.fixture(scope="module")
def checkpoint(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lora") / "checkpoint"
    convert(tiny_models["llama"], folder, options=ConvertOptions(dtype="bfloat16"))
    return folder


def build_config(engine: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((engine / "config.json").read_text())["build_config"]
    return config


def inputs(engine: Path) -> set[str]:
    return {port.any_name for port in ov.Core().read_model(engine / "openvino_model.xml").inputs}


PLAIN = {"input_ids", "attention_mask", "position_ids", "beam_idx", "logits_indices"}


def test_without_adapters_the_graph_is_the_same_to_the_byte(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compared with one that is built as if adapters weren't known of at all."""
    openvino.build(checkpoint, tmp_path / "engine", options=LIMITS)
    from builder.targets.openvino_lora import Adapters

    monkeypatch.setattr(Adapters, "added", lambda self, product, hidden, prefix: product)
    source = Checkpoint.open(checkpoint)
    tensors = source.tensors()
    graph = build_graph(source.config, tensors)
    ov.save_model(graph, tmp_path / "plain.xml", compress_to_fp16=False)
    for kind in ("xml", "bin"):
        built = (tmp_path / f"engine/openvino_model.{kind}").read_bytes()
        assert built == (tmp_path / f"plain.{kind}").read_bytes()
    assert inputs(tmp_path / "engine") == PLAIN
    assert build_config(tmp_path / "engine")["plugin_config"]["lora_plugin"] is None


def test_the_graph_has_inputs_for_what_the_adapters_change(
    checkpoint: Path, tmp_path: Path
) -> None:
    adapters = (
        peft_adapters.by_hand(tmp_path / "q", QUERY, r=2),
        peft_adapters.by_hand(tmp_path / "down", DOWN, r=6),
    )
    out = tmp_path / "engine"
    openvino.build(checkpoint, out, options=LIMITS, engine=EngineOptions(lora=adapters))
    found = build_config(out)
    assert found["plugin_config"]["lora_plugin"] == "bfloat16"
    assert found["lora_config"]["max_lora_rank"] == 6
    modules = ["attn_q", "attn_k", "attn_v", "mlp_4h_to_h"]
    assert found["lora_config"]["lora_target_modules"] == modules
    linears = ("attention.qkv", "mlp.proj")
    assert inputs(out) == PLAIN | {f"lora.{linear}.mask" for linear in linears} | {
        f"lora.{layer}.{linear}.{kind}" for layer in (0, 1) for linear in linears for kind in "ab"
    }


def test_a_rank_alone_makes_an_engine_for_adapters_of_anything(
    checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "engine"
    openvino.build(checkpoint, out, options=LIMITS, engine=EngineOptions(max_lora_rank=16))
    found = build_config(out)["lora_config"]
    assert found["max_lora_rank"] == 16
    assert set(found["lora_target_modules"]) == {
        *("attn_q", "attn_k", "attn_v", "attn_dense"),
        *("mlp_h_to_4h", "mlp_gate", "mlp_4h_to_h"),
    }


def test_an_adapter_of_a_larger_rank_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    adapter = peft_adapters.by_hand(tmp_path / "q", QUERY, r=8)
    options = EngineOptions(lora=(adapter,), max_lora_rank=4)
    with pytest.raises(LimitError, match=f"rank 8 of {adapter} and --max-lora-rank 4"):
        openvino.build(checkpoint, tmp_path / "engine", options=LIMITS, engine=options)
    assert not (tmp_path / "engine").exists()


def test_another_models_adapter_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    adapter = peft_adapters.by_hand(tmp_path / "q", {"transformer.h.0.attn.c_attn": (128, 384)})
    with pytest.raises(ModelError, match=r"transformer\.h\.0\.attn\.c_attn"):
        openvino.build(
            checkpoint, tmp_path / "engine", options=LIMITS, engine=EngineOptions(lora=(adapter,))
        )


def test_every_engine_gives_logits_and_takes_drafts(checkpoint: Path) -> None:
    """What TensorRT-LLM's engines are built for and ours have anyway."""
    config = Checkpoint.open(checkpoint).config
    found = engine_config(config, plan(config, LIMITS))["build_config"]
    assert found["gather_context_logits"] is found["gather_generation_logits"] is True
    external = 2
    assert (found["speculative_decoding_mode"], found["max_draft_len"]) == (external, 32)
    small = plan(config, LimitOptions(max_batch_size=8, max_num_tokens=8, kv_cache_gib=0.05))
    assert engine_config(config, small)["build_config"]["max_draft_len"] == 7


def test_more_beams_than_a_step_computes_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    options = EngineOptions(max_beam_width=65)
    with pytest.raises(LimitError, match="65 beams and 64 tokens"):
        openvino.build(checkpoint, tmp_path / "engine", options=LIMITS, engine=options)
    openvino.build(
        checkpoint, tmp_path / "engine", options=LIMITS, engine=EngineOptions(max_beam_width=4)
    )
    assert build_config(tmp_path / "engine")["max_beam_width"] == 4
