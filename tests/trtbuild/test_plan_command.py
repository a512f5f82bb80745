"""Promise: `trtbuild plan` says where a model fits and what to take, from config.json alone."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
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
from trtbuild.cli import trtbuild
from trtbuild.commands.plan import plan

Document = dict[str, Any]


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(plan, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def document(*arguments: object, code: int = 0) -> Document:
    found: Document = json.loads(run(*arguments, "--json", code=code))
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
    [left] = [line for line in lines if line.startswith("left out on A100-80GB: fp8, auto: ")]
    assert "FP8, which needs SM 89, on SM 80" in left
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
    found = document(*arguments, code=1)
    assert found["recommended"] is None
    assert not any(row["fits"] or row["requests"] for row in found["candidates"])
    text = run(*arguments, code=1)
    assert "doesn't fit" in text
    assert "nothing fits (the least is 35.8 GiB of weights on each: int4_wo, 1 GPU)" in text
    assert "nothing runs there" in run(model, "--gpu", "T4", code=1)


@pytest.mark.parametrize(("gpu", "tp"), [("H200", 2), ("L40S", 8), ("B200", 1)])
def test_one_request_more_than_the_plans_would_not_fit(model: Path, gpu: str, tp: int) -> None:
    """100 + 100 tokens take 7 blocks of 32; logits of more requests leave less for the cache."""
    asked = ("--input-len", 100, "--output-len", 100, "--max-batch-size", 4096)
    [row] = only(document(model, "--gpu", gpu, "--recipe", "none", *asked), tp=tp, pp=1)

    def held(requests: int) -> int:
        memory = rank_memory(
            checkpoint("Llama-3.1-70B", Layout(tp=tp), quant_algo=None),
            gpu=find(gpu),
            max_batch_size=requests,
            max_num_tokens=8192,
            max_seq_len=200,
        )
        return memory.kv_cache_tokens // 224

    assert held(row["requests"]) >= row["requests"] > 20
    assert held(row["requests"] + 1) < row["requests"] + 1


def test_requests_may_be_as_long_as_those_that_build_takes(tmp_path: Path) -> None:
    """YaRN times 4: 32768 trained positions reach 131072."""
    scaling = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    changes = {"rope_scaling": scaling, "max_position_embeddings": 32768}
    path = folder(tmp_path, "Qwen2.5-72B", **changes)
    asked = ("--gpu", "B200", "--recipe", "none", "--output-len", 72)
    assert only(document(path, *asked, "--input-len", 131000), tp=8, pp=1)[0]["fits"]
    with pytest.raises(LimitError, match="at most 131072 together"):
        run(path, *asked, "--input-len", 131001)


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


@pytest.mark.parametrize(
    ("quantization", "runs", "refuses", "why"),
    [
        ({"quant_algo": "FP8", "kv_cache_quant_algo": "INT8"}, "H100", "B200", "INT8 KV cache"),
        ({"quant_algo": "W8A16", "kv_cache_quant_algo": "FP8"}, "L40S", "A100", "FP8 KV cache"),
        ({"quant_algo": "W4A16_AWQ"}, "L40S", "B200", "W4A16_AWQ on SM 100"),
    ],
)
def test_what_build_refuses_of_a_checkpoint_is_left_out(
    tmp_path: Path, quantization: Document, runs: str, refuses: str, why: str
) -> None:
    """With config.json alone."""
    config = checkpoint("Llama-3.1-8B", group_size=128, **quantization)
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert document(tmp_path, "--gpu", runs)["recommended"]["gpus"] == 1
    found = document(tmp_path, "--gpu", refuses, code=1)
    assert not found["candidates"]
    assert why in found["left_out"][0]["why"]


def test_groups_that_the_kernel_does_not_take_are_left_out(tmp_path: Path) -> None:
    config = checkpoint("Llama-3.1-8B", quant_algo="W4A8_AWQ", group_size=64)
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert "groups of 64, not 128" in run(tmp_path, "--gpu", "L40S", code=1)


def test_a_checkpoints_cache_is_its_own(tmp_path: Path) -> None:
    """Llama 3.1 8B: 2 * 32 layers * 8 heads * 128 values, of one byte in FP8."""
    config = checkpoint("Llama-3.1-8B", quant_algo="FP8", kv_cache_quant_algo="FP8")
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert "a token takes 65,536 bytes" in run(tmp_path, "--gpu", "H100")
    [row] = document(tmp_path, "--gpu", "H100")["candidates"]
    assert row["memory"]["kv_bytes_per_token"] == 65536


def test_a_flag_for_what_a_checkpoint_already_is_is_misuse(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(checkpoint("Llama-3.1-8B", quant_algo="FP8")))
    for flag in (("--recipe", "fp8"), ("--kv-cache", "fp8"), ("--max-gpus", 2)):
        text = run(tmp_path, "--gpu", "H100", *flag, code=2)
        assert f"{flag[0]} is not for this checkpoint" in text


@pytest.mark.parametrize(
    ("name", "divided", "shown", "ranks"),
    [
        ("Mixtral-8x7B", Layout(tp=4, moe_ep=2), "tp 4, ep 2", [4, 1, 1, 2, 4]),
        ("Llama-3.1-8B", Layout(tp=2, cp=2), "tp 2 x cp 2", [2, 1, 2, 1, 4]),
    ],
)
def test_context_and_expert_ranks_are_named_and_what_is_not_estimated_is_said(
    tmp_path: Path, name: str, divided: Layout, shown: str, ranks: list[int]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(checkpoint(name, divided)))
    text = run(tmp_path, "--gpu", "H100")
    assert f"recommended: bfloat16 (its own) on H100-80GB, {shown}\n" in text
    assert ("context-parallel ranks (cp) aren't estimated" in text) == (divided.cp > 1)
    [row] = document(tmp_path, "--gpu", "H100")["candidates"]
    assert [row[name] for name in ("tp", "pp", "cp", "ep", "gpus")] == ranks


def test_names_come_from_a_setting_as_from_the_flag(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The RTX 4090's name has a blank in it, at which click would split a variable."""
    file = tmp_path / "settings.toml"
    file.write_text('[plan]\ngpu = "L40S, RTX 4090"\nrecipe = ["int4_awq"]\n')

    def gpus(*arguments: object) -> list[str]:
        command = ["--config", file, "plan", model, *arguments, "--json"]
        result = CliRunner().invoke(trtbuild, list(map(str, command)), catch_exceptions=False)
        return [gpu["name"] for gpu in json.loads(result.stdout)["gpus"]]

    assert gpus() == ["L40S", "RTX 4090"]
    monkeypatch.setenv("TRTBUILD_PLAN_GPU", "RTX 4090,L4")
    assert gpus() == ["RTX 4090", "L4"]
    assert gpus("--gpu", "H100,H100-80GB", "--gpu", "H100") == ["H100-80GB"]


def test_a_recipe_named_twice_is_planned_once(model: Path) -> None:
    found = document(model, "--gpu", "H100", "--recipe", "fp8,fp8", "--max-gpus", 1)
    assert len(found["candidates"]) == 1


def test_an_empty_list_is_misuse(model: Path) -> None:
    run(model, "--gpu", ",", code=2)
    run(model, "--gpu", "H100", "--recipe", " , ", code=2)


@pytest.mark.parametrize(("columns", "drawn"), [(80, False), (200, True)])
def test_no_digit_is_cut_on_a_narrow_terminal(model: Path, columns: int, drawn: bool) -> None:
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    command = ("trtbuild", "plan", str(model), "--gpu", "H100", "--recipe", "fp8")
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
    with subprocess.Popen([sys.executable, "-m", *command], stdout=its, env=environment) as child:
        os.close(its)
        text = b""
        try:
            while part := os.read(ours, 65536):
                text += part
        except OSError:  # Linux's end of a terminal
            pass
        os.close(ours)
    assert child.returncode == 0
    for cell in ("H100-80GB", "tok/s of all", "246,592", "3,096"):
        assert cell in text.decode()
    assert ("│" in text.decode()) == drawn


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
