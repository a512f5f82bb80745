"""Promise: build gives the engine that was asked for, whole, or says why not and leaves nothing.

TensorRT-LLM isn't here: `trtllm-build`, `nvidia-smi` and `docker` are stand-ins, as strict as the
interfaces that are documented for them. What only the real ones can show is not shown.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft_adapters
import pytest
from model_files import FIELDS
from stand_in_docker import OWN_IMAGE
from stand_in_machine import StandInMachine, gpus

from builder import manifest
from builder.checkpoint_check import check as check_checkpoint
from builder.convert import ConvertOptions, convert
from builder.errors import ArtifactError, LimitError, MissingToolError, OutputError, TrtbuildError
from builder.gpus import find
from builder.machine.resources import HostMemory
from builder.targets.tensorrt_llm.build import build
from builder.targets.tensorrt_llm.dry_run import dry_run
from builder.targets.tensorrt_llm.resolve import BuildOptions

SMALL = BuildOptions(max_batch_size=4, max_seq_len=128, max_num_tokens=128)
ADAPTED = {"model.layers.0.self_attn.q_proj": (FIELDS["hidden_size"],) * 2}


@pytest.fixture
def checkpoint(tiny_folder: Path, tmp_path: Path) -> Path:
    """A real checkpoint of one rank."""
    convert(tiny_folder, tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.fixture
def four_ranks(tiny_folder: Path, tmp_path: Path) -> Path:
    """One of two tensor-parallel times two pipeline-parallel ranks."""
    convert(tiny_folder, tmp_path / "checkpoint", options=ConvertOptions(tp=2, pp=2))
    return tmp_path / "checkpoint"


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandInMachine:
    """A machine with nothing."""
    machine = StandInMachine(tmp_path / "machine")
    machine.stand_in(monkeypatch)
    plenty = HostMemory(total_bytes=1 << 40, available_bytes=1 << 40)
    monkeypatch.setattr("builder.targets.tensorrt_llm.job.memory", lambda: plenty)
    return machine


@pytest.fixture
def machine(bare: StandInMachine) -> StandInMachine:
    """One with a GPU and TensorRT-LLM 1.2.1."""
    bare.add_gpus(*gpus())
    bare.add_tensorrt_llm()
    return bare


@pytest.fixture
def harm(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Has the compiler go wrong in a way of the stand-in's."""
    return lambda mode: monkeypatch.setenv("STAND_IN", mode)


def written(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def words(machine: StandInMachine, call: int = -1) -> list[str]:
    found: list[str] = json.loads(machine.calls[call])["words"]
    return found


def value(words: list[str], flag: str) -> str:
    return words[words.index(flag) + 1]


def refused(error: type[TrtbuildError], *arguments: Any, **options: Any) -> str:
    """What a build says that fails; it leaves no engine, and nothing unfinished."""
    with pytest.raises(error) as caught:
        build(*arguments, **{"options": SMALL, **options})
    out = arguments[1]
    assert not out.exists()
    assert not list(out.parent.glob(".*.partial"))
    return str(caught.value)


def test_an_engine_has_every_rank_and_says_what_it_is(
    four_ranks: Path, machine: StandInMachine, tmp_path: Path
) -> None:
    machine.add_gpus(*gpus(4))
    made = build(four_ranks, tmp_path / "engine", options=SMALL, name="served")
    assert written(tmp_path / "engine") == {
        *(f"rank{rank}.engine" for rank in range(4)),
        *("config.json", "build.log", "trtbuild.json"),
        *("tokenizer.json", "tokenizer_config.json", "generation_config.json"),
    }
    assert made.kind == "engine"
    assert made.made_by["tensorrt_llm"] == "1.2.1"
    assert made.made_by["tensorrt"] == "10.14.1.48"
    assert made.made_by["cuda"] == "13.1.0.036"
    assert made.options["target"] == "tensorrt-llm"
    assert made.options["gpu_sm"] == 90
    assert made.options["image"] is None
    assert made.options["build_config"]["max_batch_size"] == 4
    about = made.about
    assert (about["name"], about["tp"], about["pp"], about["world_size"]) == ("served", 2, 2, 4)
    assert about["gpu"]["sm"] == 90
    assert about["limits"]["max_seq_len"] == 128
    assert manifest.read(tmp_path / "engine", "engine") == made
    assert value(words(machine), "--workers") == "4"


def test_ranks_are_built_at_once_on_the_gpus_that_there_are(
    four_ranks: Path, machine: StandInMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.add_gpus(*gpus(3))
    build(four_ranks, tmp_path / "three", options=SMALL)
    assert value(words(machine), "--workers") == "3"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,2")
    build(four_ranks, tmp_path / "two", options=SMALL)
    assert value(words(machine), "--workers") == "2"
    build(four_ranks, tmp_path / "one", options=SMALL, workers=1)
    assert value(words(machine), "--workers") == "1"


def test_a_finished_engine_is_kept_and_another_setting_makes_it_anew(
    checkpoint: Path, machine: StandInMachine, tmp_path: Path
) -> None:
    out = tmp_path / "engine"
    first = build(checkpoint, out, options=SMALL)
    assert build(checkpoint, out, options=SMALL) == first
    assert len(machine.calls) == 1
    build(checkpoint, out, options=replace(SMALL, max_batch_size=2))
    assert len(machine.calls) == 2
    machine.add_gpus(("NVIDIA L4", "8.9", 23034))
    build(checkpoint, out, options=replace(SMALL, max_batch_size=2))
    assert len(machine.calls) == 3


def test_the_timing_cache_goes_from_build_to_build(
    checkpoint: Path, machine: StandInMachine, tmp_path: Path
) -> None:
    for count in (1, 2, 3):
        build(checkpoint, tmp_path / f"engine{count}", options=SMALL)
    [cache] = (machine.root / "cache" / "trtbuild" / "timing").iterdir()
    assert cache.read_text() == "begin 3 end"
    assert "10.14.1.48" in cache.name
    assert "sm90" in cache.name
    own = tmp_path / "mine" / "own.cache"
    build(checkpoint, tmp_path / "engine4", options=SMALL, timing_cache=own)
    assert own.read_text() == "begin 1 end"


def test_a_timing_cache_that_cannot_be_kept_is_said_and_harms_nothing(
    checkpoint: Path, machine: StandInMachine, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    said: list[str] = []
    place = tmp_path / "file" / "own.cache"
    build(checkpoint, tmp_path / "engine", options=SMALL, timing_cache=place, say=said.append)
    assert any("timing cache" in line for line in said)


def test_progress_counts_every_ranks_steps_and_warnings_are_said_once(
    four_ranks: Path, machine: StandInMachine, tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    said: list[str] = []
    build(
        four_ranks,
        tmp_path / "engine",
        options=SMALL,
        progress=lambda done, total: seen.append((done, total)),
        say=said.append,
    )
    assert seen == [(step, 16) for step in range(1, 17)]
    assert said.count("warning: Overriding reduce_fusion to False") == 1
    assert not any("--gather_generation_logits" in line for line in said)
    assert "[TRT-LLM] [I] Engine serialized." in (tmp_path / "engine" / "build.log").read_text()


def test_a_silent_compiler_is_said_to_be_at_work(
    checkpoint: Path, machine: StandInMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builder.targets.tensorrt_llm.build.BEAT_S", 0.1)
    monkeypatch.setenv("STAND_IN_SECONDS", "0.5")
    said: list[str] = []
    build(checkpoint, tmp_path / "engine", options=SMALL, say=said.append)
    assert any("step 0 of 4, 0:00 min, silent for" in line for line in said)


@pytest.mark.parametrize(
    ("mode", "error", "says"),
    [
        ("killed", LimitError, ("host's memory", "--workers 1")),
        ("pool", LimitError, ("host's memory",)),
        ("gpu-memory", LimitError, ("GPU's memory", "16654532608", "--max-num-tokens")),
        ("sm", LimitError, ("compute capability", "SM 61")),
        ("driver", MissingToolError, ("driver",)),
        ("no-gpu", MissingToolError, ("sees no GPU",)),
        ("libraries", MissingToolError, ("libnvinfer.so.10", "--container")),
        ("disk", OutputError, ("the disk is full",)),
        ("riddle", ArtifactError, ("nobody has seen", "exit code 1")),
    ],
)
def test_a_failed_build_says_why_in_one_line_and_keeps_its_log(
    checkpoint: Path,
    machine: StandInMachine,
    tmp_path: Path,
    harm: Callable[[str], None],
    mode: str,
    error: type[TrtbuildError],
    says: tuple[str, ...],
) -> None:
    harm(mode)
    line = refused(error, checkpoint, tmp_path / "engine")
    for part in says:
        assert part in line
    kept = tmp_path / "engine.build.log"
    assert str(kept) in line
    assert "TensorRT-LLM version" in kept.read_text()


def test_a_later_success_takes_the_log_of_a_failed_build_away(
    checkpoint: Path, machine: StandInMachine, tmp_path: Path, harm: Callable[[str], None]
) -> None:
    harm("riddle")
    refused(ArtifactError, checkpoint, tmp_path / "engine")
    kept = tmp_path / "engine.build.log"
    assert kept.exists()
    harm("")
    build(checkpoint, tmp_path / "engine", options=SMALL)
    assert not kept.exists()


@pytest.mark.parametrize(
    ("mode", "says"),
    [
        ("half", ("rank2.engine, rank3.engine",)),
        ("empty", ("rank0.engine", "without content")),
        ("smaller", ("max_batch_size 2 where 4",)),
        ("unpaged", ("plugin_config.use_paged_context_fmha False where True",)),
        ("other-layout", ("mapping.tp_size 4 where 2", "mapping.pp_size 1 where 2")),
        ("other-version", ("version '1.1.0' where '1.2.1'",)),
    ],
)
def test_an_engine_that_is_not_what_was_asked_for_is_refused(
    four_ranks: Path,
    machine: StandInMachine,
    tmp_path: Path,
    harm: Callable[[str], None],
    mode: str,
    says: tuple[str, ...],
) -> None:
    harm(mode)
    line = refused(ArtifactError, four_ranks, tmp_path / "engine")
    for part in says:
        assert part in line


def test_an_optimization_that_the_compiler_gave_up_is_said(
    checkpoint: Path, machine: StandInMachine, tmp_path: Path, harm: Callable[[str], None]
) -> None:
    harm("yields")
    said: list[str] = []
    build(checkpoint, tmp_path / "engine", options=SMALL, say=said.append)
    assert any("use_fused_mlp False where True" in line for line in said)


def test_drafts_lengthen_the_sequences_and_that_is_what_was_asked_for(
    checkpoint: Path, machine: StandInMachine, tmp_path: Path
) -> None:
    options = replace(SMALL, speculative="draft_tokens_external", max_draft_len=8)
    build(checkpoint, tmp_path / "engine", options=options)
    config = json.loads((tmp_path / "engine" / "config.json").read_text())
    assert config["build_config"]["max_seq_len"] == 128 + 8


@pytest.mark.parametrize("recipe", ["int8_wo", "int4_wo"])
def test_weight_only_checkpoints_build(
    tiny_folder: Path, machine: StandInMachine, tmp_path: Path, recipe: str
) -> None:
    convert(tiny_folder, tmp_path / "checkpoint", options=ConvertOptions(recipe=recipe))
    made = build(tmp_path / "checkpoint", tmp_path / "engine", options=SMALL)
    assert made.about["quant_algo"] == {"int8_wo": "W8A16", "int4_wo": "W4A16"}[recipe]


def test_context_parallel_ranks_share_their_weights_and_have_engines_of_their_own(
    tiny_folder: Path, machine: StandInMachine, tmp_path: Path
) -> None:
    convert(tiny_folder, tmp_path / "checkpoint", options=ConvertOptions(tp=2, cp=2))
    check_checkpoint(tmp_path / "checkpoint")
    assert len(list((tmp_path / "checkpoint").glob("rank*"))) == 2
    made = build(tmp_path / "checkpoint", tmp_path / "engine", options=SMALL)
    assert (made.about["cp"], made.about["world_size"]) == (2, 4)
    assert len(list((tmp_path / "engine").glob("rank*.engine"))) == 4


@pytest.mark.parametrize("container", [None, "auto"])
def test_adapters_travel_with_the_engine(
    checkpoint: Path, bare: StandInMachine, tmp_path: Path, container: str | None
) -> None:
    bare.add_gpus(*gpus())
    if container is None:
        bare.add_tensorrt_llm()
    else:
        bare.add_docker()
    adapter = peft_adapters.by_hand(tmp_path / "adapter", ADAPTED)
    options = replace(SMALL, lora=(adapter,))
    build(checkpoint, tmp_path / "engine", options=options, container=container)
    assert {"lora/0/adapter_config.json", "lora/0/adapter_model.safetensors"} <= written(
        tmp_path / "engine"
    )
    calls = len(bare.calls)
    shutil.rmtree(adapter)
    peft_adapters.by_hand(adapter, ADAPTED, r=3)
    build(checkpoint, tmp_path / "engine", options=options, container=container)
    assert len(bare.calls) == calls + 1


def test_without_a_compiler_it_says_what_would_be_one(
    checkpoint: Path, bare: StandInMachine, tmp_path: Path
) -> None:
    bare.add_gpus(*gpus())
    line = refused(MissingToolError, checkpoint, tmp_path / "engine")
    for part in ("no TensorRT-LLM", "--container", "26.07-trtllm-python-py3", "--target openvino"):
        assert part in line


def test_a_newer_tensorrt_llm_without_the_compiler_is_sent_to_llmapi(
    checkpoint: Path, bare: StandInMachine, tmp_path: Path
) -> None:
    bare.add_gpus(*gpus())
    bare.add_tensorrt_llm(compiler=False)
    assert "--target llmapi" in refused(MissingToolError, checkpoint, tmp_path / "engine")


def test_without_a_gpu_nothing_starts(
    checkpoint: Path, bare: StandInMachine, tmp_path: Path
) -> None:
    bare.add_tensorrt_llm()
    assert "no GPU" in refused(MissingToolError, checkpoint, tmp_path / "engine")
    assert not bare.calls


def test_another_gpu_than_the_one_asked_for_is_refused(
    checkpoint: Path, machine: StandInMachine, tmp_path: Path
) -> None:
    options = replace(SMALL, gpu=find("L4"))
    line = refused(LimitError, checkpoint, tmp_path / "engine", options=options)
    assert "SM 89" in line
    assert "SM 90" in line


@pytest.mark.parametrize("asked", ["H200-141GB", "H100-NVL-94GB", "H20"])
def test_another_gpu_of_the_same_generation_is_planned_for_and_not_built_for(
    four_ranks: Path, machine: StandInMachine, tmp_path: Path, asked: str
) -> None:
    options = replace(SMALL, gpu=find(asked))
    line = refused(LimitError, four_ranks, tmp_path / "engine", options=options)
    assert asked in line
    assert "H100-80GB (SM 90, 80 GiB)" in line
    planned = dry_run(four_ranks, tmp_path / "engine", options=options)
    assert planned.gpu == f"{asked} (SM 90)"
    assert planned.memory
    assert planned.memory.gpu_bytes == find(asked).memory_bytes
    assert asked in str(planned.missing)
    assert planned.settings["workers"].value == 4
    assert "a GPU for each is assumed" in planned.settings["workers"].reason


@pytest.mark.parametrize("asked", ["H100", "sm90", "NVIDIA H100 PCIe", "H100-80GB"])
def test_the_gpu_that_is_here_may_be_named_in_any_way(
    checkpoint: Path, machine: StandInMachine, tmp_path: Path, asked: str
) -> None:
    planned = dry_run(checkpoint, tmp_path / "engine", options=replace(SMALL, gpu=find(asked)))
    assert planned.missing is None
    assert planned.gpu == "H100-80GB (SM 90)"


def test_gpus_of_two_kinds_are_refused(
    checkpoint: Path, machine: StandInMachine, tmp_path: Path
) -> None:
    machine.add_gpus(*gpus(), ("NVIDIA L4", "8.9", 23034))
    line = refused(LimitError, checkpoint, tmp_path / "engine")
    assert "CUDA_VISIBLE_DEVICES" in line


def test_a_damaged_checkpoint_is_refused_before_the_compiler_starts(
    checkpoint: Path, machine: StandInMachine, tmp_path: Path
) -> None:
    weights = checkpoint / "rank0.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "rank0.safetensors" in refused(ArtifactError, checkpoint, tmp_path / "engine")
    assert not machine.calls


def test_a_full_disk_is_said_and_leaves_nothing(
    checkpoint: Path, machine: StandInMachine, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN_BYTES", str(2 << 20))
    line = refused(OutputError, checkpoint, small_disk / "engine")
    assert "No space left" in line


def test_the_container_builds_with_its_folders_mounted(
    checkpoint: Path, bare: StandInMachine, tmp_path: Path
) -> None:
    bare.add_gpus(*gpus())
    bare.add_docker()
    out = tmp_path / "with, a comma" / "engine"
    made = build(checkpoint, out, options=SMALL, container="auto")
    assert made.options["image"] == made.about["image"]
    assert made.options["image"].endswith(":26.07-trtllm-python-py3")
    assert made.made_by["tensorrt_llm"] == "1.2.1"
    assert (out / "rank0.engine").stat().st_uid == os.getuid()
    assert not list((bare.root / "containers").glob("trtbuild-*[!g]"))


@pytest.mark.parametrize("short", ["26.07", "1.2.1", "26.07-trtllm-python-py3"])
def test_a_container_may_be_named_by_its_date_or_version(
    checkpoint: Path, bare: StandInMachine, tmp_path: Path, short: str
) -> None:
    bare.add_gpus(*gpus())
    bare.add_docker()
    made = build(checkpoint, tmp_path / "engine", options=SMALL, container=short)
    assert made.options["image"] == "nvcr.io/nvidia/tritonserver:26.07-trtllm-python-py3"


@pytest.mark.parametrize(
    "image", ["24.06", "0.21.0", "nvcr.io/nvidia/tritonserver:25.08-trtllm-python-py3"]
)
def test_a_container_older_than_the_flags_is_refused_before_it_is_pulled(
    checkpoint: Path, bare: StandInMachine, tmp_path: Path, image: str
) -> None:
    bare.add_gpus(*gpus())
    line = refused(LimitError, checkpoint, tmp_path / "engine", container=image)
    assert "too old" in line
    with pytest.raises(LimitError, match="too old"):
        dry_run(checkpoint, tmp_path / "engine", options=SMALL, container=image)


def test_an_older_installed_compiler_is_refused(
    checkpoint: Path, machine: StandInMachine, tmp_path: Path
) -> None:
    [folder] = (machine.root / "site").glob("tensorrt_llm-*.dist-info")
    folder.rename(folder.with_name("tensorrt_llm-0.21.0.dist-info"))
    old = machine.root / "site" / "tensorrt_llm-0.21.0.dist-info"
    (old / "METADATA").write_text("Name: tensorrt_llm\nVersion: 0.21.0\n")
    line = refused(LimitError, checkpoint, tmp_path / "engine")
    assert "TensorRT-LLM 0.21.0 is too old" in line


def test_a_dry_run_of_a_container_says_what_is_in_it(
    checkpoint: Path, bare: StandInMachine, tmp_path: Path
) -> None:
    options = replace(SMALL, gpu=find("H100"))
    planned = dry_run(checkpoint, tmp_path / "engine", options=options, container="1.1.0")
    assert "TensorRT-LLM 1.1.0" in planned.compiler
    assert "26.02-trtllm-python-py3" in planned.compiler


def test_relative_paths_of_settings_reach_a_container_and_what_they_draw_is_writable(
    checkpoint: Path, bare: StandInMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare.add_gpus(*gpus())
    bare.add_docker()
    monkeypatch.chdir(tmp_path)
    adapter = peft_adapters.by_hand(tmp_path / "ad", ADAPTED)
    (tmp_path / "drawn").mkdir()
    settings = {"lora_dir": "ad", "visualize_network": "drawn"}
    options, said = replace(SMALL, settings=settings), list[str]()
    build(checkpoint, tmp_path / "engine", options=options, container="auto")
    assert value(words(bare), "--lora_dir") == str(adapter)
    command = dry_run(checkpoint, tmp_path / "e", options=options, container="auto").command
    drawn = tmp_path / "drawn"
    assert f"--mount=type=bind,src={drawn},dst={drawn}" in command
    build(checkpoint, tmp_path / "engine", options=options, container="auto", say=said.append)
    assert any("no network is drawn" in line for line in said)


def test_another_text_of_the_model_class_is_another_engine(
    checkpoint: Path, machine: StandInMachine, tmp_path: Path
) -> None:
    file = tmp_path / "model.py"
    settings = {"model_cls_file": str(file), "model_cls_name": "Own"}
    for text in ("class Own: pass", "class Own: other", "class Own: other"):
        file.write_text(text)
        build(checkpoint, tmp_path / "engine", options=replace(SMALL, settings=settings))
    assert len(machine.calls) == 2


def test_an_image_whose_name_says_nothing_is_asked_what_it_holds(
    checkpoint: Path, bare: StandInMachine, tmp_path: Path
) -> None:
    bare.add_gpus(*gpus())
    bare.add_docker()
    made = build(checkpoint, tmp_path / "engine", options=SMALL, container=OWN_IMAGE)
    assert made.options["image"] == OWN_IMAGE
    assert made.made_by["tensorrt"] == "10.14.1.48"


def test_an_image_that_cannot_be_had_is_one_clear_line(
    checkpoint: Path, bare: StandInMachine, tmp_path: Path
) -> None:
    bare.add_gpus(*gpus())
    bare.add_docker()
    image = "nvcr.io/nvidia/tritonserver:26.06-trtllm-python-py3"
    line = refused(MissingToolError, checkpoint, tmp_path / "engine", container=image)
    assert "can't get the image" in line
    line = refused(MissingToolError, checkpoint, tmp_path / "engine", container="no/such:1")
    assert "can't be asked" in line


def test_without_a_container_engine_that_is_said(
    checkpoint: Path, bare: StandInMachine, tmp_path: Path
) -> None:
    bare.add_gpus(*gpus())
    line = refused(MissingToolError, checkpoint, tmp_path / "engine", container="auto")
    assert "neither docker nor podman" in line


def test_a_dry_run_shows_the_command_that_a_build_runs_and_writes_nothing(
    four_ranks: Path, machine: StandInMachine, tmp_path: Path
) -> None:
    machine.add_gpus(*gpus(4))
    out = tmp_path / "engine"
    before = sorted(tmp_path.rglob("*"))
    planned = dry_run(four_ranks, out, options=SMALL)
    assert sorted(tmp_path.rglob("*")) == before
    assert planned.missing is None
    build(four_ranks, out, options=SMALL)
    own = {"--output_dir", "--output_timing_cache", str(out), str(out / "model.cache")}
    ours, theirs = planned.command[1:], words(machine)
    assert [word for word in ours if word not in own] == [
        word for word in theirs if word not in own and ".partial" not in word
    ]
    assert planned.settings["max_batch_size"].value == 4
    assert all(each.reason for each in planned.settings.values())
    assert planned.build_config == manifest.read(out).options["build_config"]


def test_a_dry_run_needs_neither_gpu_nor_compiler(
    four_ranks: Path, bare: StandInMachine, tmp_path: Path
) -> None:
    options = replace(SMALL, gpu=find("H100"))
    planned = dry_run(four_ranks, tmp_path / "engine", options=options)
    assert "no engine compiler" in str(planned.missing)
    assert planned.command[0] == "trtllm-build"
    planned = dry_run(four_ranks, tmp_path / "engine", options=options, container="auto")
    assert "neither docker nor podman" in str(planned.missing)
    assert planned.command[:3] == ("docker", "run", "--rm")
