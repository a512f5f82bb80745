"""Promise: a model that can't call the engine says so, at its start or to each request at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from plain_clients import generate
from tiny_engine import ECHO_BACKEND, make_engine

from builder.errors import LaunchError
from triton_repo.launch.triton import LaunchConfig, Triton
from triton_repo.layout import write_repository
from triton_repo.models.pbtxt import from_text, to_text

pytestmark = pytest.mark.triton


@pytest.fixture
def config(tmp_path: Path) -> LaunchConfig:
    write_repository(make_engine(tmp_path / "engine"), tmp_path / "repo")
    return LaunchConfig(
        repository=tmp_path / "repo",
        log_path=tmp_path / "triton.log",
        python_backends={"tensorrtllm": ECHO_BACKEND},
        grace_s=3,
        max_failures=1,
    )


def test_without_tritonclient_it_does_not_load_and_says_what_to_install(
    config: LaunchConfig,
) -> None:
    model = config.repository / "ensemble" / "1" / "model.py"
    hidden = "import sys\n\nsys.modules['tritonclient'] = None\nimport asyncio\n"
    model.write_text(model.read_text().replace("import asyncio\n", hidden, 1))
    with pytest.raises(LaunchError) as failure, Triton(config):
        pass
    assert "pip install 'tritonclient[grpc]'" in str(failure.value)


def test_its_parameter_names_the_endpoint_before_the_launchers_variable(
    config: LaunchConfig,
) -> None:
    path = config.repository / "ensemble" / "config.pbtxt"
    message = from_text(path.read_text())
    message.parameters["triton_grpc_address"].string_value = "127.0.0.1:1"
    path.write_text(to_text(message))
    body = {"text_input": "ab", "max_tokens": 5}
    with Triton(config) as triton:
        with pytest.raises(AssertionError, match="failed to connect"):
            generate(triton, "ensemble", body)
        (answer,) = generate(triton, "tensorrt_llm_bls", body)
    assert answer["text_output"] == "ab"
