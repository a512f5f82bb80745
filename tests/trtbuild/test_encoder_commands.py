"""Promise: an encoder goes through every command, or is refused in words that say where to go."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from gguf import GGUFWriter
from tiny_encoder import MAX_SEQ_LEN, write_encoder

from server.config import ServedEmbedding
from triton_repo.served import describe
from trtbuild.cli import trtbuild
from trtbuild.served_models import served_models


def run(*words: object) -> Result:
    return CliRunner().invoke(trtbuild, [*map(str, words)])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `model`, and `checkpoint`, `engine` and `repository` made from it."""
    root = tmp_path_factory.mktemp("encoder")
    write_encoder(root / "model", matryoshka_dimensions=[8, 16])
    for words in (
        ("convert", root / "model", "-o", root / "checkpoint", "--name", "tiny"),
        ("build", root / "checkpoint", "-o", root / "engine", "--target", "openvino"),
        ("repo", root / "engine", "-o", root / "repository"),
    ):
        result = run(*words)
        assert result.exit_code == 0, result.output
    return root


def test_each_artifact_is_whole_and_says_what_it_is(made: Path) -> None:
    for kind in ("checkpoint", "engine", "repository"):
        assert f"{kind}: {made / kind} is whole" in run("check", made / kind).stdout
        found = json.loads(run("inspect", made / kind, "--json").stdout)
        assert found["about"]["name"] == "tiny"
    assert "nothing wrong" in run("repo", "check", made / "repository").stdout


def test_the_proxy_is_told_that_it_embeds(made: Path) -> None:
    served = describe(made / "repository")
    (model,) = served_models(served.path, served.engines)
    assert (model.task, model.triton_model, model.max_seq_len) == (
        "embed",
        "embedding",
        MAX_SEQ_LEN,
    )
    assert model.embedding == ServedEmbedding(
        dimensions=32, normalize=True, matryoshka_dimensions=(8, 16)
    )


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ("build model -o out --target llmapi", "the target llmapi"),
        ("build checkpoint -o out --target tensorrt-llm --dry-run", "the target tensorrt-llm"),
        ("plan model --gpu H100", "a plan"),
        ("plan engine --gpu H100", "a plan"),
        ("quantize model -o out --recipe int8_wo", "quantization"),
        ("eval model checkpoint", "an evaluation"),
    ],
)
def test_what_is_for_decoders_says_so(
    made: Path, words: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made)
    error = str(run(*words.split()).exception)
    assert f"{what} is for models that write text; found BertModel" in error
    assert "--target openvino" in error
    assert not (made / "out").exists()


def test_an_encoder_in_gguf_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bert.gguf"
    writer = GGUFWriter(path, "bert")
    writer.add_tensor("token_embd.weight", np.zeros((8, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    error = str(run("convert", path, "-o", tmp_path / "checkpoint").exception)
    assert "is an encoder, which isn't read from GGUF" in error
