"""Promise: every kind of plain Triton client gets the same text, in a stream and whole.

The answers are forced ones, in which letters of several bytes are cut over tokens, with an engine
that answers with its prompt; and the greedy ones of a real engine.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as http_client
from plain_clients import clients
from running import echo_triton
from tiny_engine import byte_level_tokenizer, sentencepiece_tokenizer
from tokenizers import Tokenizer
from tritonclient.utils import InferenceServerException

from triton_repo.launch.triton import LaunchConfig, Triton
from triton_repo.layout import write_repository
from triton_repo.settings.options import RepositoryOptions

pytestmark = pytest.mark.triton

PIECES = [
    "日本語の文字列",
    "한국어 텍스트",
    "👩‍👩‍👧 😀",
    "e\N{COMBINING ACUTE ACCENT}a\N{COMBINING RING ABOVE}\N{COMBINING DOT BELOW}",
    "  indented\n\tcode: x[i] += '}'",
    " two  spaces ",
    "naïve Grüße",
    "नमस्ते",
    "def f(a):\n    return a\n",
    "مرحبا 1 2 3",
]
PROMPTS = [
    *PIECES,
    *(a + b for a, b in itertools.islice(itertools.permutations(PIECES, 2), 0, 80, 2)),
]
"""Fifty prompts, all within 120 bytes."""
OPTIONS = RepositoryOptions(accumulate_tokens=False)


@pytest.fixture(scope="module", params=[byte_level_tokenizer, sentencepiece_tokenizer])
def echo(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Triton, Tokenizer]]:
    make: Callable[[], Tokenizer] = request.param
    folder = tmp_path_factory.mktemp("echo")
    with echo_triton(folder, tokenizer=make(), options=OPTIONS) as triton:
        yield triton, make()


def test_fifty_prompts_come_back_letter_for_letter_through_every_client(
    echo: tuple[Triton, Tokenizer],
) -> None:
    triton, tokenizer = echo
    assert len(PROMPTS) == len(set(PROMPTS)) == 50
    for name, ask in clients(triton, tokenizer, max_tokens=120, end_id=-1):
        assert ask(PROMPTS) == PROMPTS, name


def test_a_real_engines_greedy_text_is_the_same_through_every_client(
    tiny_engine_dir: Path, tmp_path: Path
) -> None:
    write_repository(tiny_engine_dir, tmp_path / "repo", options=OPTIONS)
    tokenizer = Tokenizer.from_file(str(tiny_engine_dir / "tokenizer.json"))
    config = LaunchConfig(repository=tmp_path / "repo", log_path=tmp_path / "log", grace_s=3)
    with Triton(config) as triton:
        answers = {
            name: ask(PROMPTS) for name, ask in clients(triton, tokenizer, max_tokens=24, end_id=2)
        }
    expected = answers["tensorrt_llm, gRPC, whole"]
    assert len(set(expected)) > 10
    assert all(found == expected for found in answers.values()), [
        name for name, found in answers.items() if found != expected
    ]


def test_http_infer_is_for_models_without_streams(echo: tuple[Triton, Tokenizer]) -> None:
    triton, _ = echo
    prompt = http_client.InferInput("text_input", [1, 1], "BYTES")
    prompt.set_data_from_numpy(np.array([["a"]], dtype=np.object_))
    limit = http_client.InferInput("max_tokens", [1, 1], "INT32")
    limit.set_data_from_numpy(np.array([[4]], np.int32))
    client = http_client.InferenceServerClient(triton.http_address)
    try:
        with pytest.raises(InferenceServerException, match="decoupled"):
            client.infer("ensemble", [prompt, limit])
    finally:
        client.close()


def test_without_a_decoupled_policy_http_infer_gets_whole_answers(
    tiny_engine_dir: Path, tmp_path: Path
) -> None:
    options = RepositoryOptions(decoupled=False)
    write_repository(tiny_engine_dir, tmp_path / "repo", options=options)
    config = LaunchConfig(repository=tmp_path / "repo", log_path=tmp_path / "log", grace_s=3)
    prompt = http_client.InferInput("text_input", [1, 1], "BYTES")
    prompt.set_data_from_numpy(np.array([["ab"]], dtype=np.object_))
    limit = http_client.InferInput("max_tokens", [1, 1], "INT32")
    limit.set_data_from_numpy(np.array([[4]], np.int32))
    with Triton(config) as triton:
        client = http_client.InferenceServerClient(triton.http_address)
        try:
            texts = {
                client.infer(model, [prompt, limit]).as_numpy("text_output")[0, 0]
                for model in ("ensemble", "tensorrt_llm_bls")
            }
        finally:
            client.close()
    assert len(texts) == 1
