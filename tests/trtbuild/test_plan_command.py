"""Promise: `trtbuild plan` says where a model fits and what to take, from config.json alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from published_models import MODELS, checkpoint

from builder.convert import ConvertOptions, convert
from builder.errors import ArtifactError, LimitError, ModelError
from builder.gpus import find
from builder.limits import LimitOptions
from builder.mapping import Layout
from builder.memory import rank_memory
from builder.targets.openvino import build
from quantize.recipes import RECIPES
from trtbuild.commands.plan import plan

Document = dict[str, Any]


def run(*arguments: object) -> str:
    result = CliRunner().invoke(plan, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def document(*arguments: object) -> Document:
    found: Document = json.loads(run(*arguments, "--json"))
    return found


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with Llama 3.1 70B's config.json and nothing else."""
    return folder(tmp_path, "Llama-3.1-70B")


def folder(place: Path, name: str, **changes: Any) -> Path:
    path = place / name
    path.mkdir()
    (path / "config.json").write_text(json.dumps({**MODELS[name].fields, **changes}))
    return path


def only(found: Document, **wanted: Any) -> list[Document]:
    rows = found["candidates"]
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def test_a_table_shows_what_fits_and_recommends_one_with_its_reason(model: Path) -> None:
    text = run(model, "--gpu", "H100-80GB,A100-80GB", "--gpu", "L40S")
    lines = text.splitlines()
    assert lines[0].startswith("Llama-3.1-70B: LlamaForCausalLM, 80 layers")
    assert "327,680 bytes of KV cache" in text
    [best] = [line.split() for line in lines if line.startswith("* ")]
    assert f"recommended: {best[2]} on {best[1]}, tp 2" in lines
    assert "left out on A100-80GB: fp8, w4a8_awq: it needs Ada (SM 89) or later" in lines
    assert "roofline estimate" in text
    assert "upper estimate" in text
    assert max(map(len, [line for line in lines if " GiB " in line])) <= 130


def test_json_has_every_recipe_layout_and_gpu_or_the_reason(model: Path) -> None:
    found = document(model, "--gpu", "H100,L40S")
    seen = {(row["gpu"], row["recipe"], row["tp"], row["pp"]) for row in found["candidates"]}
    left = {(row["gpu"], row["recipe"], row.get("tp"), row.get("pp")) for row in found["left_out"]}
    layouts = [(1 << t, 1 << p) for t in range(4) for p in range(4) if t + p < 4]
    for gpu in ("H100-80GB", "L40S"):
        for recipe in ("bfloat16", *RECIPES):
            for tp, pp in layouts:
                places = {(gpu, recipe, tp, pp), (gpu, recipe, None, None)}
                assert len(places & (seen | left)) == 1
    assert all(row["why"] for row in found["left_out"])
    assert found["assumed"]["speeds"] == "a roofline estimate, not measured"


def test_the_figures_are_those_that_build_refuses_by(model: Path) -> None:
    found = document(model, "--gpu", "H100", "--recipe", "fp8")
    [row] = only(found, tp=2, pp=1)
    memory = rank_memory(
        checkpoint("Llama-3.1-70B", Layout(tp=2), quant_algo="FP8"),
        gpu=find("H100"),
        max_batch_size=row["requests"],
        max_num_tokens=8192,
        max_seq_len=2560,
    )
    assert row["memory"]["kv_cache_tokens"] == memory.kv_cache_tokens
    assert row["requests"] == memory.kv_cache_tokens // 2560
    assert row["memory"]["weights_bytes"] == memory.weights_bytes


def test_what_does_not_fit_is_shown_as_such_and_nothing_is_recommended(model: Path) -> None:
    arguments = (model, "--gpu", "L4", "--max-gpus", 1)
    found = document(*arguments)
    assert found["recommended"] is None
    assert not any(row["fits"] or row["requests"] for row in found["candidates"])
    text = run(*arguments)
    assert "doesn't fit" in text
    assert "nothing fits (the least is 35.8 GiB of weights on each: int4_wo, 1 GPU)" in text
    assert "nothing runs there" in run(model, "--gpu", "T4")


def test_the_recommended_loses_least_and_serves_most_for_each_gpu(model: Path) -> None:
    found = document(model, "--gpu", "H100,L40S,A100")
    best = found["recommended"]
    lossless = ("bfloat16", "fp8", "int8_wo")
    assert best["recipe"] in lossless
    rates = [
        row["estimate"]["served_tokens_s_per_gpu"]
        for row in found["candidates"]
        if row["fits"] and row["recipe"] in lossless
    ]
    assert best["estimate"]["served_tokens_s_per_gpu"] * 1.15 >= max(rates)
    # an L40S alone holds 4 bits only
    alone = document(model, "--gpu", "L40S", "--max-gpus", 1)["recommended"]
    assert alone["recipe"] in ("int4_awq", "w4a8_awq")


def test_a_small_model_is_left_as_it_is(smollm2_gguf: Path) -> None:
    best = document(smollm2_gguf, "--gpu", "RTX 4090")["recommended"]
    assert best["gpus"] == 1
    assert best["recipe"] == "bfloat16"


def test_longer_requests_are_fewer_and_an_fp8_cache_holds_twice_as_many(model: Path) -> None:
    asked = (model, "--gpu", "H100", "--recipe", "fp8", "--max-gpus", 2)
    short, long, small = (
        only(document(*asked, *more), tp=2)[0]
        for more in ((), ("--input-len", 16384), ("--kv-cache", "fp8"))
    )
    assert long["requests"] < short["requests"] / 5
    assert small["requests"] == pytest.approx(2 * short["requests"], abs=3)


def test_a_group_that_divides_no_rank_is_left_out_with_the_reason(tmp_path: Path) -> None:
    """Qwen2.5 72B: 29568 / 8 = 3696 inputs, of which no group of 64 is made."""
    path = folder(tmp_path, "Qwen2.5-72B")
    found = document(path, "--gpu", "H100", "--recipe", "int4_awq,fp8")
    [left] = [row for row in found["left_out"] if row.get("tp") == 8]
    assert left["recipe"] == "int4_awq"
    assert "no group" in left["why"]
    assert only(found, tp=8, recipe="fp8")


def test_windows_are_noted(tmp_path: Path) -> None:
    text = run(folder(tmp_path, "Gemma-2-27B"), "--gpu", "H100", "--recipe", "none")
    assert "376,832 bytes of KV cache over all layers; 23 layers keep the last 4096 only" in text


def test_all_shows_every_layout(model: Path) -> None:
    text = run(model, "--gpu", "H100", "--recipe", "fp8", "--all")
    assert {"tp 8", "tp 4 x pp 2", "tp 2 x pp 4", "pp 8"} <= {
        layout for layout in ("tp 8", "tp 4 x pp 2", "tp 2 x pp 4", "pp 8") if layout in text
    }


def test_a_picture_is_drawn(model: Path, tmp_path: Path) -> None:
    run(model, "--gpu", "H100", "--png", tmp_path / "plan.png")
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_a_quantized_model_keeps_its_quantization(tmp_path: Path) -> None:
    config = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}
    path = folder(tmp_path, "Llama-3.1-70B", quantization_config=config)
    found = document(path, "--gpu", "H100")
    assert {row["recipe"] for row in found["candidates"]} == {"W4A16_AWQ (its own)"}
    assert only(found, tp=1, pp=1)[0]["fits"]


def test_checkpoints_and_engines_are_planned_as_they_are(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    divided, whole, engine = (tmp_path / name for name in ("divided", "whole", "engine"))
    convert(tiny_models["llama"], divided, options=ConvertOptions(tp=2))
    found = document(divided, "--gpu", "L4", "--input-len", 100, "--output-len", 100)
    assert [(row["tp"], row["recipe"]) for row in found["candidates"]] == [(2, "float16 (its own)")]
    convert(tiny_models["llama"], whole)
    limits = LimitOptions(max_batch_size=3, max_seq_len=128, max_num_tokens=64, kv_cache_gib=0.01)
    build(whole, engine, options=limits)
    found = document(engine, "--gpu", "L4", "--input-len", 100, "--output-len", 28)
    assert found["candidates"][0]["requests"] == 3
    assert found["kind"] == "engine"
    with pytest.raises(LimitError, match="beyond what the engine is made for"):
        run(engine, "--gpu", "L4", "--input-len", 100, "--output-len", 29)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (("--gpu", "MI300X"), LimitError, "no such GPU"),
        (("--gpu", "sm90"), LimitError, "how much memory sm90 has"),
        (("--gpu", "H100", "--recipe", "fp9"), LimitError, "no such recipe"),
        (("--gpu", "H100", "--input-len", "131072"), LimitError, "at most 131072 together"),
    ],
)
def test_what_cannot_be_planned_is_refused(
    model: Path, arguments: tuple[str, ...], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        run(model, *arguments)


def test_a_damaged_config_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "engine"
    path.mkdir()
    with pytest.raises(ModelError):
        run(path, "--gpu", "H100")
    (path / "config.json").write_text('{"pretrained_config": {}, "build_config": {}}')
    with pytest.raises(ArtifactError, match="doesn't say what the engine was built for"):
        run(path, "--gpu", "H100")
