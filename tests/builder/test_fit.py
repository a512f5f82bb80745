"""Promise: whatever keeps an engine from running in a place is told before, with what mends it.

Engines, GPUs and drivers are stand-ins (built_engine.py, nvidia_smi.py).
"""

from __future__ import annotations

import json
import shlex
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
from built_engine import VERSIONS, write
from nvidia_smi import program

from builder import versions
from builder.errors import ArtifactError, LimitError
from builder.fit import Comparison, compare, fit, is_engine, refuse_misfit
from builder.fit import place as fit_place
from builder.fit.place import Place, in_container, place_of, with_gpu
from builder.machine import Machine
from builder.machine.gpu import InstalledGpu
from builder.machine.resources import host
from builder.machine.smi import Nvidia

GIB = 1 << 30


def gpu(
    index: int = 0, name: str = "NVIDIA H100 80GB HBM3", sm: int = 90, **other: Any
) -> InstalledGpu:
    memory = {"memory_bytes": 79 * GIB, "free_bytes": 78 * GIB, **other}
    return InstalledGpu(index=index, name=name, sm=sm, **memory)


A100 = {"name": "NVIDIA A100-SXM4-80GB", "sm": 80}
RIGHT = Place(name="this machine", driver="590.48.01", gpus=(gpu(),), **VERSIONS)
"""Where an engine of built_engine.py runs."""


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    return write(tmp_path / "engine")


def told(found: Comparison) -> dict[str, tuple[str, str, bool]]:
    return {each.what: (each.engine, each.found, each.fatal) for each in found.mismatches}


def only(engine: Path, place: Place) -> Any:
    """The one mismatch."""
    [found] = fit(engine, place)
    return found


def test_an_engine_fits_where_it_was_built(engine: Path) -> None:
    found = compare(engine, RIGHT, deep=True)
    assert (found.fits, found.whole, found.mismatches, found.unknown) == (True, True, (), ())
    assert {each.what for each in found.agreements} == {
        *("TensorRT-LLM", "TensorRT", "CUDA", "driver"),
        *("compute capability", "GPUs", "GPU memory"),
    }
    refuse_misfit(engine, RIGHT)


def test_another_tensorrt_llm_and_tensorrt_are_mended_by_the_image_or_a_build(
    engine: Path,
) -> None:
    place = replace(RIGHT, tensorrt_llm="1.1.0", tensorrt="10.13.3.9")
    found = compare(engine, place)
    assert told(found) == {
        "TensorRT-LLM": ("built with 1.2.1", "1.1.0", True),
        "TensorRT": ("built with 10.14.1.48", "10.13.3.9", True),
    }
    assert found.fits is False
    for each in found.mismatches:
        assert "serve it in nvcr.io/nvidia/tritonserver:26.07-trtllm-python-py3" in each.do
        assert each.command.startswith("trtbuild build CHECKPOINT")
        assert "--container" not in each.command  # TensorRT-LLM 1.1.0 builds here


def test_versions_are_the_same_however_much_of_them_is_written(engine: Path) -> None:
    place = replace(RIGHT, tensorrt="10.14.1.48.post1", tensorrt_llm="1.2.1+cu131", cuda="13.2")
    assert fit(engine, place) == []


def test_cuda_of_another_major_version_is_a_mismatch(engine: Path) -> None:
    assert only(engine, replace(RIGHT, cuda="12.9")).what == "CUDA"


def test_where_no_engines_are_built_any_more_the_way_is_to_migrate(engine: Path) -> None:
    found = only(engine, replace(RIGHT, tensorrt_llm="1.3.0rc23"))
    assert found.command == f"trtbuild migrate {engine} --model MODEL -o {engine}-llmapi"
    assert "LLM API" in found.do


def test_another_compute_capability_is_mended_by_a_build_for_it(engine: Path) -> None:
    found = only(engine, replace(RIGHT, gpus=(gpu(**A100), gpu(1, **A100))))
    assert found.what == "compute capability"
    assert found.engine == "built for SM 90 (NVIDIA H100 80GB HBM3)"
    assert found.found == "2 NVIDIA A100-SXM4-80GB (SM 80)"
    assert "--gpu NVIDIA A100-SXM4-80GB" in " ".join(shlex.split(found.command))
    assert found.fatal


def test_a_gpu_of_unknown_capability_is_given_the_benefit_of_the_doubt(engine: Path) -> None:
    assert compare(engine, replace(RIGHT, gpus=(gpu(sm=0),))).fits is True


def test_another_model_of_the_same_capability_is_no_more_than_a_warning(engine: Path) -> None:
    place = replace(RIGHT, gpus=(gpu(name="NVIDIA H200", memory_bytes=140 * GIB),))
    found = only(engine, place)
    assert (found.what, found.fatal) == ("GPU model", False)
    assert compare(engine, place).fits is True
    refuse_misfit(engine, place)


def test_of_several_kinds_of_gpu_the_right_ones_are_named(tmp_path: Path) -> None:
    engine = write(tmp_path / "engine", tp=2)
    mixed = (gpu(0, **A100), gpu(1), gpu(2, **A100), gpu(3))
    assert "CUDA_VISIBLE_DEVICES=1,3" in only(engine, replace(RIGHT, gpus=mixed)).do
    sorted_out = (gpu(1), gpu(3), gpu(0, **A100))
    assert fit(engine, replace(RIGHT, gpus=sorted_out)) == []
    # the ranks take the first GPUs; what comes after them doesn't matter
    assert fit(engine, replace(RIGHT, gpus=(*sorted_out, gpu(4)))) == []


def test_fewer_gpus_than_ranks_is_mended_by_another_layout(tmp_path: Path) -> None:
    engine = write(tmp_path / "engine", tp=4)
    found = only(engine, replace(RIGHT, gpus=(gpu(0), gpu(1), gpu(2))))
    assert (found.what, found.engine) == ("GPUs", "4 ranks, one GPU each")
    assert "trtbuild convert MODEL -o CHECKPOINT --tp 2" in found.do
    assert found.command.startswith("trtbuild build CHECKPOINT")


def test_ranks_on_other_nodes_need_no_gpu_here(tmp_path: Path) -> None:
    engine = write(tmp_path / "engine", tp=4, gpus_per_node=2)
    assert fit(engine, replace(RIGHT, gpus=(gpu(0), gpu(1)))) == []
    assert only(engine, replace(RIGHT, gpus=(gpu(0),))).what == "GPUs"


def test_slices_of_a_gpu_count_as_one(tmp_path: Path) -> None:
    engine = write(tmp_path / "engine", tp=2)
    slices = (gpu(mig="3g.40gb"), gpu(mig="3g.40gb"))
    assert only(engine, replace(RIGHT, gpus=slices)).found.startswith("1 NVIDIA H100")


@pytest.mark.parametrize(
    ("memory", "free", "fatal"),
    [(15, 15, True), (79, 15, True), (79, 17, False), (79, 40, None)],
    ids=["never fits", "taken by others", "no room for a cache", "fits"],
)
def test_weights_of_16_gib_need_a_gpu_that_has_them_free(
    memory: int, free: int, fatal: bool | None, tmp_path: Path
) -> None:
    engine = write(tmp_path / "engine", rank_bytes=16 * GIB)
    place = replace(RIGHT, gpus=(gpu(memory_bytes=memory * GIB, free_bytes=free * GIB),))
    found = fit(engine, place)
    assert [each.fatal for each in found] == ([] if fatal is None else [fatal])
    assert all(each.engine == "16.0 GiB of weights on a rank" for each in found)


def test_the_rank_with_the_least_free_memory_counts(tmp_path: Path) -> None:
    engine = write(tmp_path / "engine", tp=2, rank_bytes=16 * GIB)
    place = replace(RIGHT, gpus=(gpu(0), gpu(1, free_bytes=4 * GIB)))
    assert only(engine, place).found == "4.0 GiB free of 79.0 GiB on GPU 1"


def test_weights_that_are_streamed_need_not_fit(tmp_path: Path) -> None:
    settings = {"weight_streaming": "enable", "gemm_plugin": "disable"}
    engine = write(tmp_path / "engine", rank_bytes=100 * GIB, settings=settings)
    assert fit(engine, RIGHT) == []


@pytest.mark.parametrize(
    ("driver", "name", "fatal"),
    [
        ("590.44.01", "NVIDIA H100 80GB HBM3", None),
        ("615.61", "NVIDIA H100 80GB HBM3", None),
        ("580.95.05", "NVIDIA H100 80GB HBM3", False),
        ("570.211.01", "NVIDIA H100 80GB HBM3", False),
        ("570.211.01", "NVIDIA GeForce RTX 4090", True),
    ],
)
def test_the_driver_must_run_the_containers_cuda(
    driver: str, name: str, fatal: bool | None, tmp_path: Path
) -> None:
    sm = 90 if "H100" in name else 89
    engine = write(tmp_path / "engine", sm=sm, gpu=name)
    here = Nvidia(gpus=(gpu(name=name, sm=sm),), driver=driver)
    found = fit(engine, in_container("26.07", here))
    assert [(each.what, each.fatal) for each in found] == (
        [] if fatal is None else [("driver", fatal)]
    )
    if driver.startswith("570"):
        assert "update the driver to 580.65.06 or newer" in found[0].do
        assert "tritonserver:25.10-trtllm-python-py3" in found[0].do


def test_a_container_is_compared_by_its_tag(engine: Path) -> None:
    here = Nvidia(gpus=(gpu(),), driver="590.48.01")
    assert compare(engine, in_container("26.04", here)).fits is True
    found = compare(engine, in_container("25.08", here))
    assert told(found) == {
        "TensorRT-LLM": ("built with 1.2.1", "0.21.0", True),
        "TensorRT": ("built with 10.14.1.48", "10.11.0.33", True),
        "CUDA": ("built with 13.1.0.036", "12.9.0.043", True),
    }
    again = "--container nvcr.io/nvidia/tritonserver:25.08-trtllm-python-py3"
    assert all(again in each.command for each in found.mismatches)


def test_a_release_is_a_place_too(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_place, "nvidia", lambda: Nvidia(gpus=(gpu(),), driver="590.44.01"))
    assert fit(engine, versions.release("1.2.1")) == []


def test_without_a_gpu_what_could_not_be_compared_is_said_and_not_called_a_fit(
    engine: Path,
) -> None:
    none = Nvidia(present=False, problem="no NVIDIA driver")
    found = compare(engine, in_container("26.07", none))
    assert found.fits is None
    assert found.mismatches == ()
    unknown = {each.what: each.why for each in found.unknown}
    assert unknown.keys() == {"driver", "compute capability", "GPUs", "GPU memory"}
    assert all("--gpu" in why for why in unknown.values())


@pytest.mark.parametrize(
    ("here", "why"),
    [
        (Nvidia(problem="nvidia-smi: No devices were found", do="plug it in"), "plug it in"),
        (Nvidia(hidden=2, driver="590.44.01"), "CUDA_VISIBLE_DEVICES hides them"),
        (Nvidia(present=False, problem="no NVIDIA driver"), "--gpu NAME"),
    ],
)
def test_why_no_gpu_could_be_compared_is_said(here: Nvidia, why: str, engine: Path) -> None:
    machine = Machine(nvidia=here, tensorrt_llm=None, container=None, host=host())
    for place in (place_of(machine), in_container("26.07", here)):
        unknown = {each.what: each.why for each in compare(engine, place).unknown}
        assert why in unknown["compute capability"]


def test_a_server_is_refused_only_where_there_surely_is_no_gpu(engine: Path) -> None:
    silent = Nvidia(problem="an NVIDIA driver, but no nvidia-smi", do="run it with utility")
    hidden = Nvidia(hidden=1, driver="590.44.01")
    for here, refused in ((silent, False), (hidden, True), (Nvidia(present=False), True)):
        machine = Machine(nvidia=here, tensorrt_llm=None, container=None, host=host())
        with pytest.raises(ArtifactError) if refused else nullcontext():
            refuse_misfit(engine, machine)


def test_without_tensorrt_llm_versions_are_unknown(engine: Path) -> None:
    place = replace(RIGHT, tensorrt_llm=None, tensorrt=None, cuda=None)
    found = compare(engine, place)
    assert found.fits is None
    assert {each.what for each in found.unknown} == {"TensorRT-LLM", "TensorRT", "CUDA", "driver"}
    refuse_misfit(engine, place)


def test_a_gpu_that_isnt_here_is_compared_by_its_name(engine: Path) -> None:
    container = in_container("26.07", Nvidia(present=False))
    assert compare(engine, with_gpu(container, "H100")).mismatches == ()
    found = only(engine, with_gpu(container, "RTX 4090"))
    assert (found.what, found.found) == ("compute capability", "1 RTX 4090 (SM 89)")
    with pytest.raises(LimitError, match="known"):
        with_gpu(container, "Voodoo 2")


def test_missing_ranks_are_all_told_with_the_command_that_builds_them(tmp_path: Path) -> None:
    engine = write(tmp_path / "engine", tp=4)
    for rank in (1, 3):
        (engine / f"rank{rank}.engine").unlink()
    found = fit(engine, replace(RIGHT, gpus=tuple(map(gpu, range(4)))))
    assert [each.what for each in found] == ["rank1.engine", "rank3.engine"]
    assert all(each.command.startswith("trtbuild build CHECKPOINT") for each in found)


def test_changed_bytes_are_found_only_by_reading_them(engine: Path) -> None:
    file = engine / "rank0.engine"
    file.write_bytes(b"B" + file.read_bytes()[1:])
    assert fit(engine, RIGHT) == []
    found = compare(engine, RIGHT, deep=True)
    assert told(found) == {"rank0.engine": ("as it was built", "another digest", True)}
    assert not found.whole


def test_changed_sizes_are_found_without_reading(engine: Path) -> None:
    (engine / "rank0.engine").write_bytes(b"half")
    assert only(engine, RIGHT).found == "another size"


def test_an_engine_of_trtllm_build_alone_is_compared_as_far_as_it_tells(tmp_path: Path) -> None:
    engine = write(tmp_path / "engine", tp=2, ours=False)
    assert is_engine(engine)
    place = replace(RIGHT, tensorrt_llm="1.1.0", gpus=(gpu(0), gpu(1)))
    found = compare(engine, place)
    assert told(found) == {"TensorRT-LLM": ("built with 1.2.1", "1.1.0", True)}
    assert found.whole is None
    assert {each.what for each in found.unknown} == {
        *("files", "TensorRT", "CUDA", "compute capability"),
    }
    (engine / "rank1.engine").unlink()
    assert "rank1.engine" in told(compare(engine, place))


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    engine = write(tmp_path / "engine", tp=4)
    (engine / "rank3.engine").unlink()
    here = Nvidia(gpus=(gpu(name="NVIDIA GeForce RTX 4090", sm=89),), driver="570.211.01")
    found = compare(engine, in_container("26.03", here))
    assert [each.what for each in found.problems] == [
        *("rank3.engine", "TensorRT-LLM", "driver", "compute capability", "GPUs"),
    ]


def test_a_server_is_refused_with_the_first_problem_and_the_number_of_the_others(
    engine: Path,
) -> None:
    place = replace(RIGHT, tensorrt_llm="1.1.0", tensorrt="10.13.3.9", cuda="12.9")
    with pytest.raises(ArtifactError) as error:
        refuse_misfit(engine, place)
    assert "doesn't fit this machine: TensorRT-LLM: built with 1.2.1" in error.value.what
    assert error.value.found == "1.1.0"
    assert "trtbuild build CHECKPOINT" in str(error.value.do)
    assert f"(2 more: trtbuild check {engine})" in str(error.value.do)


def test_a_machine_without_a_gpu_is_a_misfit_and_its_server_refused(engine: Path) -> None:
    place = replace(RIGHT, gpus=())
    assert told(compare(engine, place)) == {
        "GPUs": ("one GPU", "no NVIDIA GPU that CUDA may use", True)
    }
    with pytest.raises(ArtifactError, match=r"no NVIDIA GPU.*--target openvino"):
        refuse_misfit(engine, place)


def test_a_version_that_is_no_number_is_unknown(engine: Path) -> None:
    """Images are seen with CUDA_VERSION=latest."""
    found = compare(engine, replace(RIGHT, cuda="latest"))
    assert found.mismatches == ()
    assert {each.what: each.why for each in found.unknown} == {
        "CUDA": "'latest' is no version",
        "driver": "'latest' is no version",
    }


def test_progress_counts_the_bytes_that_are_read(tmp_path: Path) -> None:
    engine, told = write(tmp_path / "engine", tp=2), []
    compare(engine, RIGHT, deep=True, progress=lambda *each: told.append(each))
    size = sum(f.stat().st_size for f in engine.iterdir() if f.name != "trtbuild.json")
    assert told[-1] == (size, size)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert len(told) == 3


def test_an_engine_of_another_target_is_none_of_its_business(tmp_path: Path) -> None:
    engine = write(tmp_path / "engine")
    manifest = json.loads((engine / "trtbuild.json").read_text())
    manifest["options"]["target"] = "openvino"
    (engine / "trtbuild.json").write_text(json.dumps(manifest))
    assert not is_engine(engine)
    refuse_misfit(engine, replace(RIGHT, gpus=()))


def test_a_checkpoint_or_an_empty_folder_is_no_engine(tmp_path: Path) -> None:
    assert not is_engine(tmp_path)
    (tmp_path / "config.json").write_text('{"architecture": "LlamaForCausalLM"}')
    assert not is_engine(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    assert not is_engine(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_a_config_that_isnt_json_is_an_error_that_says_so(text: str, engine: Path) -> None:
    (engine / "config.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"config\.json"):
        compare(engine, RIGHT)


@pytest.mark.parametrize("text", ['{"version": 1}', '{"build_config": 7, "pretrained_config": []}'])
def test_a_config_without_its_sections_is_damage(text: str, engine: Path) -> None:
    (engine / "config.json").write_text(text)
    assert "config.json" in told(compare(engine, RIGHT))


SETTINGS = {
    "gemm_plugin": "disable",
    "kv_cache_type": "paged",
    "tokens_per_block": "64",
    "use_fused_mlp": "disable",
    "gather_generation_logits": "enable",
    "profiling_verbosity": "detailed",
}


@pytest.mark.parametrize("ours", [True, False])
def test_the_command_that_rebuilds_gives_the_same_settings(ours: bool, tmp_path: Path) -> None:
    engine = write(tmp_path / "my engine", settings=SETTINGS, ours=ours, image="mine:1")
    found = only(engine, replace(RIGHT, tensorrt_llm="1.1.0"))
    words = shlex.split(found.command)
    pairs = dict(word.split("=") for at, word in enumerate(words) if words[at - 1] == "--set")
    limits = {words[at]: words[at + 1] for at in range(len(words)) if words[at][:6] == "--max-"}
    assert limits["--max-batch-size"] == "64"
    assert limits["--max-seq-len"] == "8192"
    assert limits["--max-num-tokens"] == "4096"
    assert words[:5] == ["trtbuild", "build", "CHECKPOINT", "-o", str(engine)]
    again = write(tmp_path / "again", settings=pairs)
    asked, got = (
        json.loads((folder / "config.json").read_text())["build_config"]
        for folder in (engine, again)
    )
    assert got == asked


def parsed(command: str) -> list[dict[str, Any]]:
    """The parameters of each command of a shell line, read by the commands themselves."""
    from trtbuild.cli import trtbuild

    group = click.Context(trtbuild, info_name="trtbuild")
    found = []
    for each in command.split(" && "):
        program, name, *words = shlex.split(each)
        assert program == "trtbuild"
        ours = trtbuild.get_command(group, name)
        assert ours
        found.append(ours.make_context(name, words, parent=group).params)
    return found


@pytest.mark.parametrize("served", [False, True], ids=["a folder", "in a repository"])
@pytest.mark.parametrize(
    "changes",
    [{"tensorrt_llm": "1.3.0"}, {"tensorrt_llm": "1.1.0"}, {"gpus": (gpu(**A100),)}],
    ids=["1.3", "1.1", "A100"],
)
def test_every_command_that_is_printed_is_one_that_we_take(
    changes: dict[str, Any], served: bool, tmp_path: Path
) -> None:
    engine = write(tmp_path / ("repo/tensorrt_llm/1" if served else "engine"), settings=SETTINGS)
    if served:
        (engine.parent / "config.pbtxt").touch()
    commands = [each.command for each in fit(engine, replace(RIGHT, **changes)) if each.command]
    assert commands
    for command in commands:
        outs = [each["out"] for each in parsed(command)]
        if "migrate" in command:
            assert outs == [tmp_path / ("repo-llmapi" if served else "engine-llmapi")]
        elif served:
            # never into the repository: that is written again, whole
            assert outs == [Path("ENGINE"), tmp_path / "repo"]
            assert parsed(command)[1]["engine"] == (Path("ENGINE"),)
        else:
            assert outs == [engine]


def test_an_engine_with_the_usual_settings_is_rebuilt_without_a_set(engine: Path) -> None:
    assert "--set" not in only(engine, replace(RIGHT, tensorrt_llm="1.1.0")).command


def test_without_a_compiler_here_it_is_built_again_in_the_image_that_built_it(
    tmp_path: Path,
) -> None:
    nowhere = Place(name="this machine", gpus=(gpu(**A100),))
    known = only(write(tmp_path / "known", image="mine:1"), nowhere).command
    assert known.endswith("--container mine:1")
    other = only(write(tmp_path / "other"), nowhere).command
    assert other.endswith("--container nvcr.io/nvidia/tritonserver:26.07-trtllm-python-py3")


DOCKER = """#!{python} -IS
import json, sys
if sys.argv[1:] == ["info", "--format", "{{{{json .}}}}"]:
    print(json.dumps({{"ServerVersion": "28.2.2", "Runtimes": {{"nvidia": {{}}}}}}))
elif sys.argv[1:6] == ["run", "--rm", "team/triton:ours", "python3", "-c"]:
    assert "find_spec" in sys.argv[6]
    print("== the banner of NVIDIA's images ==")
    print(json.dumps({{"version": "1.1.0", "tensorrt": "10.13.3.9", "cuda": "13.0.2.006",
                       "compiler": True, "llmapi": True}}))
else:
    sys.exit(f"not expected: {{sys.argv}}")
"""


def test_an_image_whose_name_doesnt_say_is_asked_itself(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docker is a stand-in."""
    here = Nvidia(gpus=(gpu(),), driver="590.44.01")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(LimitError, match="doesn't say"):
        in_container("team/triton:ours", here)
    (tmp_path / "bin").mkdir()
    program(tmp_path / "bin" / "docker", DOCKER.format(python=sys.executable))
    found = compare(engine, in_container("team/triton:ours", here))
    assert told(found) == {
        "TensorRT-LLM": ("built with 1.2.1", "1.1.0", True),
        "TensorRT": ("built with 10.14.1.48", "10.13.3.9", True),
    }
