"""What the tests of `docker/` share: its places, the tools that may be here, and our command line.

docker-compose and hadolint are the real programs, from wheels of the test extra; promtool comes
with Prometheus. No image is built or run: that takes a container engine.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
COMPOSE = (DOCKER / "compose.yaml", DOCKER / "compose.cpu.yaml")


def tool(name: str) -> str:
    """The program `name`, beside this Python or on the PATH; without it the test is skipped."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a tool as it is on a machine without settings of its own."""
    settings = ("TRTBUILD_", "COMPOSE_", "DOCKER_")
    clean = {k: v for k, v in os.environ.items() if not k.startswith(settings)}
    return subprocess.run(
        [str(word) for word in words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**clean, **environment},
    )


@lru_cache
def resolved(file: Path, *options: str, **environment: str) -> dict[str, Any]:
    """A compose file as compose itself understands it: merged, interpolated, checked."""
    settings = {"REPOSITORY": "/some/repository", **environment}
    result = run(tool("docker-compose"), "-f", file, *options, "config", **settings)
    assert result.returncode == 0, result.stderr
    assert not result.stderr
    found: dict[str, Any] = yaml.safe_load(result.stdout)
    return found


def parsed(words: list[str]) -> dict[str, Any]:
    """The parameters of a command line of ours, read by the command itself; it isn't run."""
    from trtbuild.cli import trtbuild

    group = click.Context(trtbuild, info_name="trtbuild")
    command = trtbuild.get_command(group, words[0])
    assert command, f"trtbuild has no command {words[0]}"
    context = command.make_context(words[0], list(words[1:]), parent=group)
    if words[0] == "serve":
        from trtbuild.commands.serve import refuse_meaningless

        refuse_meaningless(context, context.params["only"])
    return context.params


def seconds(duration: str) -> float:
    """A duration of compose: 1m30s."""
    units = {"h": 3600, "m": 60, "s": 1}
    return sum(float(n) * units[unit] for n, unit in re.findall(r"([\d.]+)([hms])", duration))
