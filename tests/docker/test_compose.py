"""Promise: the compose files are whole, safe by default, and start commands that exist."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from containers import COMPOSE, DOCKER, parsed, resolved, run, seconds, tool

from builder.machine.findings import wanted_shm_bytes
from builder.versions import LAST_WITH_ENGINES, image
from server.config import ServerConfig
from trtbuild.commands.models import probe as probe_command

GPU, CPU = COMPOSE
both = pytest.mark.parametrize("file", COMPOSE, ids=lambda file: file.name)
ALL = ("--profile", "monitoring")
# Triton and trtbuild take the time that they are given; then the supervisor ends what is left
ENDING_S = 20


def services(file: Path, *options: str, **environment: str) -> dict[str, Any]:
    found: dict[str, Any] = resolved(file, *options, **environment)["services"]
    return found


def schema_says(file: Path) -> int:
    check = (sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec")
    return run(*check, file).returncode


@both
def test_the_file_obeys_the_compose_specification(file: Path) -> None:
    assert schema_says(file) == 0


def test_the_schema_would_object(tmp_path: Path) -> None:
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(GPU.read_text().replace("shm_size", "shmsize"))
    assert schema_says(wrong) == 1


@both
def test_triton_comes_up_with_the_proxy_and_monitoring_only_when_asked_for(file: Path) -> None:
    plain = services(file)
    assert set(plain) == {"triton", "proxy"}
    assert "proxy" in plain["triton"]["depends_on"]
    assert set(services(file, *ALL)) == {"triton", "proxy", "prometheus", "grafana"}


@both
def test_without_a_repository_nothing_starts_and_it_is_said_why(file: Path) -> None:
    result = run(tool("docker-compose"), "-f", file, "config", REPOSITORY="")
    assert result.returncode != 0
    assert "the folder that trtbuild repo wrote" in result.stderr


@both
def test_nobody_but_the_projects_own_containers_reaches_triton(file: Path) -> None:
    project = resolved(file, *ALL)
    triton = project["services"]["triton"]
    assert "ports" not in triton
    assert "network_mode" not in triton
    assert [project["networks"][name].get("internal") for name in triton["networks"]] == [True]
    neighbours = {
        name
        for name, service in project["services"].items()
        if set(service["networks"]) & set(triton["networks"])
    }
    assert neighbours == {"triton", "proxy", "prometheus"}


@both
def test_what_is_published_is_published_to_this_machine_unless_told_otherwise(file: Path) -> None:
    found = services(file, *ALL)
    published = {
        name: port["host_ip"]
        for name, service in found.items()
        for port in service.get("ports", ())
    }
    assert published == dict.fromkeys(("proxy", "prometheus", "grafana"), "127.0.0.1")
    [open_port] = services(file, ADDRESS="0.0.0.0", PORT="80")["proxy"]["ports"]
    assert (open_port["host_ip"], open_port["published"]) == ("0.0.0.0", "80")


@both
@pytest.mark.parametrize("name", ["triton", "proxy"])
def test_commands_are_commands_of_ours_with_what_the_other_container_expects(
    file: Path, name: str
) -> None:
    found = services(file)
    command = parsed(found[name]["command"])
    assert command["only"] == name
    assert command["host"] == "0.0.0.0"
    [repository] = found[name]["volumes"]
    assert str(command["repository"]) == repository["target"]
    assert repository["read_only"] is True
    triton = parsed(found["triton"]["command"])
    if name == "proxy":
        assert command["tritons"] == (f"triton:{triton['grpc_port']}",)
        [port] = found["proxy"]["ports"]
        assert port["target"] == command["port"]


@both
def test_health_is_the_engines_tokens_and_has_time_to_become_so(file: Path) -> None:
    found = services(file)
    triton = parsed(found["triton"]["command"])
    url = f"http://127.0.0.1:{parsed(found['proxy']['command'])['port']}/health"
    assert found["proxy"]["healthcheck"]["test"] == [
        *("CMD", "python3", "/opt/trtbuild/ready.py", url),
    ]
    health = found["triton"]["healthcheck"]
    run, program, *words = health["test"]
    assert (run, program, words[:2]) == ("CMD", "trtbuild", ["models", "probe"])
    probe = probe_command.make_context("probe", words[2:]).params
    # it finds Triton, whatever it serves, by the log that serve was given
    assert (probe["repository"], probe["log"]) == (triton["repository"], triton["log"])
    assert probe["timeout"] < seconds(health["timeout"])
    for name in ("triton", "proxy"):
        assert seconds(found[name]["healthcheck"]["start_period"]) >= max(
            120, triton["start_timeout"]
        )
    for name, service in services(file, *ALL).items():
        assert service["healthcheck"]["test"], name


@both
def test_every_container_has_time_to_end_and_comes_back(file: Path) -> None:
    for name in ("triton", "proxy"):
        service = services(file)[name]
        assert seconds(service["stop_grace_period"]) >= ServerConfig.drain_seconds + ENDING_S
    for service in services(file, *ALL).values():
        assert service["restart"] == "unless-stopped"
        # reaps what a killed parent leaves
        assert service["init"] is True


@both
def test_no_container_has_more_rights_than_it_needs(file: Path) -> None:
    for service in services(file, *ALL).values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not {"privileged", "cap_add", "user", "pid", "ipc", "devices"} & set(service)


@both
def test_triton_has_the_shared_memory_and_limits_of_nvidias_guides(file: Path) -> None:
    triton = services(file)["triton"]
    ranks = 2 if file == GPU else 0
    assert int(triton["shm_size"]) >= wanted_shm_bytes(ranks)
    assert triton["ulimits"] == {"memlock": -1, "stack": 67108864}
    assert int(services(file, SHM_SIZE="10g")["triton"]["shm_size"]) == 10 << 30


def test_the_gpus_are_tritons_alone() -> None:
    reserved = {
        name: service["deploy"]["resources"]["reservations"]["devices"]
        for name, service in services(GPU, *ALL).items()
        if "deploy" in service
    }
    # -1 is compose's word for all
    assert reserved == {"triton": [{"driver": "nvidia", "count": -1, "capabilities": ["gpu"]}]}
    two = services(GPU, GPUS="2")["triton"]["deploy"]["resources"]["reservations"]["devices"]
    assert two[0]["count"] == 2


def test_the_file_for_cpus_is_the_same_but_for_the_image_the_gpus_and_patience() -> None:
    gpu, cpu = services(GPU, *ALL), services(CPU, *ALL)
    differing = {
        (name, key)
        for name in gpu
        for key in {*gpu[name], *cpu[name]}
        if gpu[name].get(key) != cpu[name].get(key)
    }
    assert differing == {
        ("triton", "build"),
        ("triton", "image"),
        ("triton", "command"),
        ("triton", "deploy"),
        ("triton", "environment"),
        ("triton", "healthcheck"),
        ("triton", "shm_size"),
        ("proxy", "build"),
        ("proxy", "image"),
        ("proxy", "healthcheck"),
    }
    assert set(gpu["triton"]["command"]) - set(cpu["triton"]["command"]) == {"--start-timeout=1200"}
    assert (gpu["triton"]["build"]["target"], cpu["triton"]["build"]["target"]) == ("gpu", "cpu")


def test_the_base_image_holds_the_last_tensorrt_llm_that_runs_engines() -> None:
    wanted = image(LAST_WITH_ENGINES)
    build = services(GPU)["triton"]["build"]
    assert build["args"] == {"TRITON_IMAGE": wanted}
    assert f"ARG TRITON_IMAGE={wanted}\n" in (DOCKER / "Dockerfile").read_text()
    assert f"TRITON_IMAGE={wanted}\n" in (DOCKER / ".env.example").read_text()
    other = "nvcr.io/nvidia/tritonserver:26.03-trtllm-python-py3"
    assert services(GPU, TRITON_IMAGE=other)["proxy"]["build"]["args"] == {"TRITON_IMAGE": other}


def test_every_setting_is_in_the_example_and_every_example_is_a_setting() -> None:
    used = {name for file in COMPOSE for name in re.findall(r"\$\{([A-Z_]+)", file.read_text())} | {
        "GRAFANA_PASSWORD"
    }
    example = (DOCKER / ".env.example").read_text()
    assert set(re.findall(r"^([A-Z_]+)=", example, re.MULTILINE)) == used
    assert "environment: GRAFANA_PASSWORD" in CPU.read_text()


@both
def test_no_password_is_written_down(file: Path) -> None:
    project = resolved(file, *ALL, GRAFANA_PASSWORD="hunter2")
    assert project["secrets"]["grafana_password"]["environment"] == "GRAFANA_PASSWORD"
    grafana = project["services"]["grafana"]
    secret = grafana["environment"]["GF_SECURITY_ADMIN_PASSWORD__FILE"]
    assert grafana["secrets"] == [{"source": "grafana_password", "target": secret}]
    assert "hunter2" not in str(project)
    assert ".env" in (DOCKER / ".gitignore").read_text().split()
