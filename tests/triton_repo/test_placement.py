"""Promise: how engines start and on which GPUs follows from the repository, as upstream has it.

The command lines are data here; TensorRT-LLM's backend and its orchestrator did not run.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_engine import make_engine

from builder.errors import ArtifactError, LaunchError
from triton_repo.launch import placement
from triton_repo.launch.command import LaunchConfig, environment
from triton_repo.launch.placement import Form, Placement
from triton_repo.layout import Part, write_parts, write_repository
from triton_repo.settings.options import RepositoryOptions

ENGINE = ("rank0.engine",)


def engine(folder: Path, world_size: int = 1) -> Path:
    """An engine for GPUs, as far as its files' names go."""
    ranks = tuple(f"rank{rank}.engine" for rank in range(world_size))
    made = make_engine(folder, files=ranks, target="tensorrt-llm")
    config = json.loads((made / "config.json").read_text())
    config["pretrained_config"]["mapping"] = {"world_size": world_size, "tp_size": world_size}
    (made / "config.json").write_text(json.dumps(config))
    return made


def write_divided(folder: Path) -> Path:
    """A repository of the engines a and b, each of two ranks on two GPUs of its own."""
    parts = [
        Part(
            engine=engine(folder / name, 2),
            name=name,
            options=RepositoryOptions(gpu_device_ids=(gpus,)),
        )
        for name, gpus in (("a", (0, 1)), ("b", (2, 3)))
    ]
    write_parts(parts, folder / "repo")
    return folder / "repo"


def one(**fields: object) -> Placement:
    return Placement(model="tensorrt_llm", **fields)  # type: ignore[arg-type]


FORMS: list[tuple[str, list[Placement], Form]] = [
    ("a GPU", [one()], Form(engine_models=("tensorrt_llm",))),
    (
        "leader mode: a tritonserver for each rank",
        [one(world_size=4)],
        Form(ranks=4, engine_models=("tensorrt_llm",)),
    ),
    (
        "instances of a GPU each need no MPI",
        [one(instances=2, gpu_device_ids=((0,), (1,)))],
        Form(engine_models=("tensorrt_llm",)),
    ),
    (
        "instances of several GPUs: upstream's 0,1;2,3",
        [one(world_size=2, instances=2, gpu_device_ids=((0, 1), (2, 3)))],
        Form(orchestrator=True, engine_models=("tensorrt_llm",)),
    ),
    (
        "two models of two GPUs each: upstream's --multi-model",
        [
            Placement(model="a", world_size=2, gpu_device_ids=((0, 1),)),
            Placement(model="b", world_size=2, gpu_device_ids=((2, 3),)),
        ],
        Form(orchestrator=True, engine_models=("a", "b")),
    ),
    (
        "the same with ranks of their own: --disable-spawn-processes --world_size=5",
        [
            Placement(model="a", world_size=2, participant_ids=((1, 2),)),
            Placement(model="b", world_size=2, participant_ids=((3, 4),)),
        ],
        Form(ranks=5, orchestrator=True, engine_models=("a", "b")),
    ),
    ("the LLM API starts its own workers", [], Form()),
]


@pytest.mark.parametrize(("why", "placements", "form"), FORMS, ids=[each[0] for each in FORMS])
def test_the_form_follows_from_the_engines(
    why: str, placements: list[Placement], form: Form
) -> None:
    assert placement.form_of(placements) == form


def test_some_ranks_given_and_others_not_is_refused() -> None:
    given = Placement(model="a", participant_ids=((1,),))
    with pytest.raises(LaunchError, match="found none for b"):
        placement.form_of([given, Placement(model="b")])


REFUSALS: list[tuple[list[Placement], int, str]] = [
    ([one()], 0, r"needs GPU 0; found 0 GPUs"),
    ([one(world_size=4)], 2, r"needs GPU 2; found 2 GPUs"),
    ([one(gpu_device_ids=((7,),))], 4, r"needs GPU 7"),
    ([one(world_size=2, gpu_device_ids=((0,),))], 4, r"2 ranks and needs as many gpu_device_ids"),
    ([one(world_size=2, gpu_device_ids=((1, 1),))], 4, r"needs as many gpu_device_ids"),
    ([one(instances=3, gpu_device_ids=((0,), (1,)))], 4, r"each of its instances.*0;1 for 3"),
    ([one(instances=2)], 4, r"same GPU 0.*--share-gpus"),
    ([Placement(model="a"), Placement(model="b")], 4, r"b and a would run on the same GPU 0"),
    (
        [
            Placement(model="a", participant_ids=((1,),), gpu_device_ids=((0,),)),
            Placement(model="b", participant_ids=((1,),), gpu_device_ids=((1,),)),
        ],
        4,
        r"one instance each",
    ),
    ([one(participant_ids=((0,),))], 4, r"rank 0 is the orchestrator's"),
]


@pytest.mark.parametrize(("placements", "gpus", "words"), REFUSALS)
def test_what_the_gpus_cannot_hold_is_refused(
    placements: list[Placement], gpus: int, words: str
) -> None:
    with pytest.raises(LaunchError, match=words):
        placement.check(placements, gpus, share=False, say=print)


@pytest.mark.parametrize("placements", [each[1] for each in FORMS])
def test_what_fits_is_let_pass_in_silence(placements: list[Placement]) -> None:
    said: list[str] = []
    # of those without ids of their own each takes the first GPUs
    share = any(not each.gpu_device_ids for each in placements) and len(placements) > 1
    placement.check(placements, 4, share=share, say=said.append)
    assert bool(said) == share


def test_sharing_is_allowed_where_it_is_asked_for_and_told() -> None:
    said: list[str] = []
    placement.check([Placement(model="a"), Placement(model="b")], 1, share=True, say=said.append)
    [line] = said
    assert "b shares GPU 0 with a" in line


def test_placements_are_read_from_the_repository(tmp_path: Path) -> None:
    options = RepositoryOptions(
        tensorrt_llm_instance_count=2, gpu_device_ids=((0, 1), (2, 3)), bls_instance_count=3
    )
    write_repository(engine(tmp_path / "engine", 2), tmp_path / "repo", options=options)
    [found] = placement.read(tmp_path / "repo")
    assert found == one(world_size=2, instances=2, gpu_device_ids=((0, 1), (2, 3)))
    # preprocessing, postprocessing, 3 each of ensemble and BLS, on a CPU the engine's own
    assert placement.python_instances(tmp_path / "repo", "tensorrt-llm") == 8
    assert placement.python_instances(tmp_path / "repo", "openvino") == 10


def test_several_engines_of_several_ranks_are_an_orchestrators(tmp_path: Path) -> None:
    found = placement.read(write_divided(tmp_path))
    placement.check(found, 4, share=False, say=print)
    models = ("a_tensorrt_llm", "b_tensorrt_llm")
    assert placement.form_of(found) == Form(orchestrator=True, engine_models=models)


def test_ids_that_are_none_are_refused_by_name(tmp_path: Path) -> None:
    write_repository(engine(tmp_path / "engine"), tmp_path / "repo")
    path = tmp_path / "repo" / "tensorrt_llm" / "config.pbtxt"
    path.write_text(
        path.read_text() + 'parameters { key: "gpu_device_ids" value { string_value: "zero" } }\n'
    )
    with pytest.raises(ArtifactError, match="tensorrt_llm: gpu_device_ids must be numbers"):
        placement.read(tmp_path / "repo")
    # as upstream's templates leave it where nobody fills it
    path.write_text(path.read_text().replace("zero", "${gpu_device_ids}"))
    assert placement.read(tmp_path / "repo")[0].gpu_device_ids == ()


@pytest.mark.parametrize(
    ("orchestrator", "ranks", "wanted"),
    [
        (False, 1, {}),
        (False, 4, {}),
        (True, 1, {"TRTLLM_ORCHESTRATOR": "1", "TRTLLM_ORCHESTRATOR_SPAWN_PROCESSES": "1"}),
        (True, 5, {"TRTLLM_ORCHESTRATOR": "1", "TRTLLM_ORCHESTRATOR_SPAWN_PROCESSES": "0"}),
    ],
)
def test_the_environment_is_upstreams(
    orchestrator: bool, ranks: int, wanted: dict[str, str], tmp_path: Path
) -> None:
    """launch_triton_server.py: --multi-model, with and without --disable-spawn-processes."""
    config = LaunchConfig(
        repository=tmp_path, log_path=tmp_path, world_size=ranks, orchestrator=orchestrator
    )
    assert environment(config) == wanted
