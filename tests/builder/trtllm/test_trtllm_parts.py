"""Promise: logs are understood, workers fit the memory, containers get what they need, and caches
are kept whole.

Lines of logs are from public reports of builds that failed, cut; flags of docker and podman from
NVIDIA's guides.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builder.errors import ArtifactError, LimitError, MissingToolError, OutputError, TrtbuildError
from builder.gpus import find
from builder.progress import silent
from builder.targets.tensorrt_llm.build_log import BuildLog
from builder.targets.tensorrt_llm.config import BuildConfig, PluginConfig
from builder.targets.tensorrt_llm.container import Container
from builder.targets.tensorrt_llm.engine_check import check
from builder.targets.tensorrt_llm.timing_cache import TimingCache, default_place
from builder.targets.tensorrt_llm.workers import workers

GIB = 1 << 30


@pytest.mark.parametrize(
    ("line", "error", "says"),
    [
        (
            "[06:30:40] [TRT] [E] 2: [virtualMemoryBuffer.cpp::resizePhysical::140] Error Code 2:"
            " OutOfMemory (no further information)",
            LimitError,
            "GPU's memory",
        ),
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB",
            LimitError,
            "GPU's",
        ),
        (
            "[E] Error[9]: IBuilder::buildSerializedNetwork: Error Code 9: API Usage Error (Target"
            " GPU SM 120 is not supported by this TensorRT release.)",
            LimitError,
            "compute capability",
        ),
        (
            "RuntimeError: [TensorRT-LLM][ERROR] Assertion failed: Unsupported architecture"
            " (/tensorrt_llm/cpp/tensorrt_llm/kernels/contextFusedMultiHeadAttention/x.cpp:89)",
            LimitError,
            "compute capability",
        ),
        ("RuntimeError: INT8/INT4 quantization is not supported on SM>=100.", LimitError, "GPU"),
        ("OSError: [Errno 122] Disk quota exceeded", OutputError, "disk is full"),
        ("trtllm-build: error: unrecognized arguments: --fused", LimitError, "these flags"),
        (
            "docker: Error response from daemon: could not select device driver '' with"
            " capabilities: [[gpu]].",
            MissingToolError,
            "sees no GPU",
        ),
        (
            'docker: Error response from daemon: exec: "trtllm-build": executable file not found in'
            " $PATH: unknown.",
            MissingToolError,
            "no engine compiler",
        ),
        (
            "docker: Error response from daemon: pull access denied for x, repository does not"
            " exist or may require 'docker login'",
            MissingToolError,
            "can't get the image",
        ),
        (
            "docker: Cannot connect to the Docker daemon at unix:///var/run/docker.sock.",
            MissingToolError,
            "doesn't answer",
        ),
        ("AssertionError: Unsupported model architecture: Foo", ArtifactError, "no such model"),
    ],
)
def test_known_failures_are_told_by_their_cause(
    tmp_path: Path, line: str, error: type[TrtbuildError], says: str
) -> None:
    found = failure(tmp_path, [line, "AssertionError: Engine building failed"])
    assert type(found) is error
    assert says in str(found)


def test_what_a_good_build_says_too_is_no_cause(tmp_path: Path) -> None:
    lines = [
        "[x] [TRT] [W] UNSUPPORTED_STATESkipping tactic 2 due to insufficient memory on requested"
        " size of 33555480576 detected. Requested amount of GPU memory",
        "ValueError: a riddle",
    ]
    assert failure(tmp_path, lines).what == "the engine compiler failed"


def failure(folder: Path, lines: list[str]) -> TrtbuildError:
    log = BuildLog(folder / "log", ranks=1, progress=silent, say=lambda line: None)
    for line in lines:
        log.take(line)
    log.close()
    return log.failure(1, folder / "kept")


@pytest.mark.parametrize(
    ("code", "says"), [(139, "ended by SIGSEGV: last words"), (3, "exit code 3: last words")]
)
def test_an_unknown_failure_is_told_by_its_ending_and_last_words(
    tmp_path: Path, code: int, says: str
) -> None:
    log = BuildLog(tmp_path / "log", ranks=1, progress=silent, say=lambda line: None)
    log.take("last words")
    log.close()
    assert says in str(log.failure(code, tmp_path / "kept"))


def test_silence_is_told_with_the_time_and_the_step(tmp_path: Path) -> None:
    said: list[str] = []
    steps: list[tuple[int, int]] = []
    log = BuildLog(
        tmp_path / "log", ranks=2, progress=lambda *step: steps.append(step), say=said.append
    )
    log.take("[x] [TRT-LLM] [I] Build TensorRT engine Unnamed Network 0")
    log.beat()
    log.close()
    assert steps == [(1, 8), (1, 8)]
    assert "step 1 of 8, 0:00 min, silent for 0 s" in said[-1]


@pytest.mark.parametrize(
    ("ranks", "gpus", "rank_gib", "free_gib", "asked", "expected"),
    [
        # 6 GiB and twice the weights each: 22 GiB
        (4, 4, 8, 100, None, 4),
        (4, 4, 8, 87, None, 3),
        (4, 2, 8, 100, None, 2),
        (1, 8, 8, 100, None, 1),
        (8, 8, 70, 64, None, 1),
        (4, 4, 8, 10, 4, 4),
        (4, 2, 8, 100, 4, 2),
    ],
)
def test_workers_are_what_gpus_and_memory_hold(
    ranks: int, gpus: int, rank_gib: int, free_gib: int, asked: int | None, expected: int
) -> None:
    found, why = workers(
        ranks=ranks,
        gpus=gpus,
        rank_bytes=rank_gib * GIB,
        available_bytes=free_gib * GIB,
        asked=asked,
    )
    assert found == expected
    assert why


def test_what_is_said_of_the_workers_is_what_is_known() -> None:
    plenty = {"ranks": 6, "rank_bytes": GIB, "available_bytes": 1000 * GIB}
    assert workers(**plenty, gpus=2, asked=2) == (2, "as asked")
    assert "6 ranks and 2 GPUs" in workers(**plenty, gpus=2, asked=4)[1]
    count, why = workers(**plenty, gpus=None)
    assert count == 6
    assert "6 ranks; a GPU for each is assumed" in why


def test_docker_and_podman_are_called_as_their_guides_say(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    folders = {"reads": [Path("/models/a, b")], "writes": [tmp_path]}
    docker = Container(engine="/usr/bin/docker", image="image:1")
    command = docker.command(["trtllm-build", "--help"], **folders)
    assert command[:3] == ["/usr/bin/docker", "run", "--rm"]
    assert command[-3:] == ["image:1", "trtllm-build", "--help"]
    assert command[command.index("--gpus") + 1] == "all"
    assert command[command.index("--user") + 1] == f"{os.getuid()}:{os.getgid()}"
    assert "CUDA_VISIBLE_DEVICES" in command
    assert '--mount=type=bind,"src=/models/a, b","dst=/models/a, b",readonly' in command
    assert f"--mount=type=bind,src={tmp_path},dst={tmp_path}" in command
    name = command[command.index("--name") + 1]
    assert docker.removal == ["/usr/bin/docker", "rm", "--force", name]
    rootless = Container(engine="/usr/bin/docker", image="image:1", rootless=True)
    assert "--user" not in rootless.command(["trtllm-build"], **folders)
    podman = Container(engine="/usr/bin/podman", image="image:1")
    assert podman.name != name
    command = podman.command(["trtllm-build"], **folders)
    assert command[command.index("--device") + 1] == "nvidia.com/gpu=all"
    assert "--gpus" not in command
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    assert "--userns=keep-id" in podman.command(["trtllm-build"], **folders)


def test_a_timing_cache_belongs_to_a_tensorrt_and_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    places = {
        default_place(tensorrt, find(gpu))
        for tensorrt in ("10.14.1.48", "10.13.3.9")
        for gpu in ("H100", "H200", "L4")
    }
    assert len(places) == 6
    assert all(str(place).startswith("/cache/trtbuild/timing/") for place in places)
    assert default_place(None, find("H100")) is None
    assert default_place("10.14.1.48", None) is None


def test_a_timing_cache_that_the_compiler_left_empty_replaces_nothing(tmp_path: Path) -> None:
    place = tmp_path / "cache"
    place.write_text("known")
    lent = TimingCache.lent(place, tmp_path / "lent")
    assert lent.input is not None
    assert lent.input.read_text() == "known"
    lent.after.touch()
    lent.keep(print)
    assert place.read_text() == "known"
    lent.after.write_text("known and more")
    lent.keep(print)
    assert place.read_text() == "known and more"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "lent"]


CONFIG = BuildConfig(
    max_seq_len=128, kv_cache_type="paged", plugin_config=PluginConfig(dtype="float16")
)


def engine(folder: Path, built: BuildConfig, **mapping: int) -> dict[str, Any]:
    """Write an engine of one rank that says it was built so."""
    mapping = {"world_size": 1, "tp_size": 1, "pp_size": 1, **mapping}
    config = {
        "version": "1.2.1",
        "pretrained_config": {"mapping": mapping},
        "build_config": built.to_json(),
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "rank0.engine").write_bytes(b"engine")
    return {"asked": CONFIG, "mapping": {"world_size": 1}, "tensorrt_llm": "1.2.1"}


def test_auto_is_the_models_dtype(tmp_path: Path) -> None:
    plugins = replace(CONFIG.plugin_config, gpt_attention_plugin="float16")
    asked = engine(tmp_path, replace(CONFIG, plugin_config=plugins))
    assert check(tmp_path, **asked)[1] == []
    plugins = replace(CONFIG.plugin_config, gpt_attention_plugin="bfloat16")
    asked = engine(tmp_path, replace(CONFIG, plugin_config=plugins))
    with pytest.raises(ArtifactError, match="gpt_attention_plugin 'bfloat16' where 'float16'"):
        check(tmp_path, **asked)


@pytest.mark.parametrize(
    "changed",
    [
        {"max_seq_len": 64},
        {"max_num_tokens": 64},
        {"kv_cache_type": "continuous"},
        {"gather_context_logits": True},
        {"weight_streaming": True},
        {"speculative_decoding_mode": "medusa"},
    ],
)
def test_another_setting_in_the_engine_is_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    asked = engine(tmp_path, replace(CONFIG, **changed))
    with pytest.raises(ArtifactError, match=next(iter(changed))):
        check(tmp_path, **asked)


def test_a_rank_too_many_and_a_torn_config_are_refused(tmp_path: Path) -> None:
    asked = engine(tmp_path, CONFIG)
    (tmp_path / "rank1.engine").write_bytes(b"engine")
    with pytest.raises(ArtifactError, match=r"rank1\.engine"):
        check(tmp_path, **asked)
    (tmp_path / "rank1.engine").unlink()
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ArtifactError, match="not whole"):
        check(tmp_path, **asked)
