"""Promise: build takes each target's options, refuses the others' by name, and shows its plan.

`trtllm-build` and `nvidia-smi` are stand-ins: TensorRT-LLM isn't here.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import peft_adapters
import pytest
from click.testing import CliRunner, Result
from stand_in_machine import SMALL, StandInMachine, full_environment, gpus

from builder.convert import convert
from builder.errors import TrtbuildError
from trtbuild.cli import trtbuild
from trtbuild.target_options import FOR_BUILD, FOR_UP, TARGETS, Option

VALUES: dict[str, tuple[str, ...]] = {
    "--set": ("a=b",),
    "--gather-logits": ("all",),
    "--speculative": ("medusa",),
    "--kv-fraction": ("0.5",),
    "--gpu": ("H100",),
    "--lora": ("adapter",),
    "--timing-cache": ("file",),
    "--container": ("auto",),
}


@pytest.fixture(scope="module")
def checkpoint(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("build") / "checkpoint"
    convert(tiny_models["llama"], folder)
    return folder


def run(*arguments: object, code: int = 0) -> Result:
    words = ["build", *map(str, arguments)]
    result = CliRunner().invoke(trtbuild, words, catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def words(option: Option) -> tuple[str, ...]:
    if option.settings.get("is_flag"):
        return (option.flag,)
    return (option.flag, *VALUES.get(option.flag, ("2",)))


WRONG = [
    (option, target) for option in FOR_BUILD for target in TARGETS if target not in option.targets
]


@pytest.mark.parametrize(
    ("option", "target"), WRONG, ids=lambda value: getattr(value, "flag", value)
)
def test_an_option_of_another_target_is_refused_by_name(option: Option, target: str) -> None:
    result = run("x", "-o", "y", "--target", target, *words(option), code=2)
    assert f"{option.flag} is an option of the target" in result.output
    assert f"not of {target}." in result.output


def test_so_is_one_from_the_environment_or_the_settings_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("[build]\ntarget = 'openvino'\nworkers = 2\n")
    result = CliRunner().invoke(trtbuild, ["--config", str(file), "build", "x", "-o", "y"])
    assert "--workers is an option of the target tensorrt-llm" in result.output
    monkeypatch.setenv("TRTBUILD_BUILD_KV_CACHE_GIB", "2")
    result = run("x", "-o", "y", "--target", "tensorrt-llm", code=2)
    assert "--kv-cache-gib is an option of the target openvino" in result.output


def test_every_option_of_build_and_up_has_a_target_and_a_help() -> None:
    for option in (*FOR_BUILD, *FOR_UP):
        assert option.targets
        assert set(option.targets) <= set(TARGETS)
        assert option.help.endswith(".")


@pytest.mark.parametrize(
    ("pairs", "says"),
    [(("max_batch_size",), "NAME=VALUE"), (("=4",), "NAME=VALUE"), (("a=1", "a=2"), "twice")],
)
def test_a_malformed_setting_is_misuse(pairs: tuple[str, ...], says: str) -> None:
    arguments = [word for pair in pairs for word in ("--set", pair)]
    assert says in run("x", "-o", "y", "--target", "tensorrt-llm", *arguments, code=2).output


def test_a_container_that_swallowed_the_checkpoint_is_misuse(checkpoint: Path) -> None:
    result = run("--container", checkpoint, "-o", "y", "--target", "tensorrt-llm", code=2)
    assert "is a folder, not an image" in result.output


def test_the_target_is_tensorrt_llm_where_it_can_be_built_else_openvino(
    checkpoint: Path, machine: StandInMachine, tmp_path: Path
) -> None:
    limits = ("--max-batch-size", "4", "--max-num-tokens", "64")

    def target(name: str) -> str:
        result = run(checkpoint, "-o", tmp_path / name, *limits, "--json")
        found: str = json.loads(result.stdout)["options"]["target"]
        return found

    assert target("nothing") == "openvino"
    machine.add_tensorrt_llm()
    assert target("no-gpu") == "openvino"
    machine.add_gpus(*gpus())
    assert target("both") == "tensorrt-llm"


def test_an_option_of_one_target_chooses_it(
    checkpoint: Path, machine: StandInMachine, tmp_path: Path
) -> None:
    machine.add_gpus(*gpus())
    machine.add_docker()
    made = json.loads(
        run(checkpoint, "-o", tmp_path / "e", "--container=auto", "--json", *SMALL).stdout
    )
    assert made["options"]["target"] == "tensorrt-llm"
    both = ("--container=auto", "--kv-cache-gib", "2")
    result = run(checkpoint, "-o", tmp_path / "f", *both, code=2)
    assert "--kv-cache-gib is an option of the target openvino, not of tensorrt" in result.output


@pytest.mark.parametrize("flag", ["--max-input-len", "--max-beam-width", "--max-draft-len"])
def test_a_count_of_none_is_misuse(flag: str) -> None:
    result = run("x", "-o", "y", "--target", "tensorrt-llm", flag, "0", code=2)
    assert "x>=1" in result.output


def test_a_dry_run_on_a_narrow_terminal_leaves_nothing_out(
    checkpoint: Path, machine: StandInMachine, tmp_path: Path
) -> None:
    hidden = json.loads((checkpoint / "config.json").read_text())["hidden_size"]
    q_proj = {"model.layers.0.self_attn.q_proj": (hidden, hidden)}
    adapter = peft_adapters.by_hand(tmp_path / "a[red]d", q_proj)
    words = (str(checkpoint), "-o", "engine", "--target", "tensorrt-llm", "--dry-run", *SMALL)
    command = [sys.executable, "-m", "trtbuild", "build", *words, "--lora", str(adapter)]
    controller, terminal = pty.openpty()
    environment = full_environment(machine, COLUMNS="60", TERM="dumb")
    with os.fdopen(terminal, "wb") as output, os.fdopen(controller, "rb", buffering=0) as shown:
        with subprocess.Popen(command, stdout=output, env=environment) as process:
            output.close()
            text = b""
            with contextlib.suppress(OSError):
                while chunk := shown.read(1 << 16):
                    text += chunk
        assert process.returncode == 0
    table = text.decode().partition("compiler:")[0]
    columns = [line.split("│") for line in table.splitlines() if line.count("│") > 1]
    folded = "".join(each[2].strip() for each in columns)
    assert str(adapter) in folded
    names = "".join(each[1].strip() for each in columns)
    assert "use_paged_context_fmha" in names


def test_what_was_asked_reaches_the_compiler(
    checkpoint: Path, machine: StandInMachine, tmp_path: Path
) -> None:
    machine.add_tensorrt_llm()
    machine.add_gpus(*gpus())
    asked = (
        *("--max-beam-width", "2", "--gather-logits", "generation", "--multiple-profiles"),
        *("--set", "reduce_fusion=disable", "--set", "profiling_verbosity=detailed"),
        *("--set", "logits_dtype=float16"),
    )
    result = run(checkpoint, "-o", tmp_path / "engine", "--name", "served", *SMALL, *asked)
    assert result.stdout.startswith("engine: ")
    config = json.loads((tmp_path / "engine" / "config.json").read_text())
    assert config["pretrained_config"]["logits_dtype"] == "float16"
    built = config["build_config"]
    assert (built["max_batch_size"], built["max_beam_width"]) == (4, 2)
    assert built["gather_generation_logits"]
    assert built["plugin_config"]["multiple_profiles"]
    assert built["profiling_verbosity"] == "detailed"
    again = run(checkpoint, "-o", tmp_path / "engine", "--name", "served", *SMALL, *asked)
    assert "already there" in again.stdout
    assert len(machine.calls) == 1


def test_a_dry_run_says_the_command_and_why_each_setting_is_so(
    checkpoint: Path, machine: StandInMachine, tmp_path: Path
) -> None:
    arguments = (checkpoint, "-o", tmp_path / "engine", "--target", "tensorrt-llm", "--gpu", "H100")
    shown = run(*arguments, "--dry-run", *SMALL).stdout
    assert "max_batch_size" in shown
    assert "as asked" in shown
    assert f"mkdir -p {tmp_path / 'engine'}" in shown
    assert f"trtllm-build --checkpoint_dir {checkpoint}" in shown
    assert "can't be done here: there is no engine compiler here" in shown
    told: dict[str, Any] = json.loads(run(*arguments, "--dry-run", "--json", *SMALL).stdout)
    assert told["command"][0] == "trtllm-build"
    assert told["settings"]["max_batch_size"] == {"value": 4, "reason": "as asked"}
    assert told["build_config"]["plugin_config"]["use_paged_context_fmha"] is True
    assert not (tmp_path / "engine").exists()


def test_llmapi_takes_a_hugging_face_folder_and_its_settings(
    tiny_models: dict[str, Path], machine: StandInMachine, tmp_path: Path
) -> None:
    out = tmp_path / "engine"
    arguments = (tiny_models["llama"], "-o", out, "--target", "llmapi", "--tp", "2", *SMALL)
    dry = run(*arguments, "--dry-run").stdout
    assert "tensor_parallel_size: 2" in dry
    assert not out.exists()
    made = json.loads(run(*arguments, "--json").stdout)
    assert made["options"]["target"] == "llmapi"
    assert made["about"]["tp"] == 2
    assert (out / "model.yaml").read_text().strip() == dry.strip()


def test_what_cannot_be_built_is_an_error_of_ours(
    checkpoint: Path, machine: StandInMachine, tmp_path: Path
) -> None:
    with pytest.raises(TrtbuildError, match="--container"):
        run(checkpoint, "-o", tmp_path / "engine", "--target", "tensorrt-llm")
