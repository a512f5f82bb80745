"""Promise: an encoder beside a decoder in a repository; each request gets its text's embedding."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import running
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tiny_encoder import FIELDS, MAX_SEQ_LEN, VOCABULARY, expected_embedding, write_encoder
from tiny_engine import ECHO_BACKEND, make_engine
from tritonclient.utils import InferenceServerException
from waiting import until

from builder.convert import ConvertOptions, convert
from builder.errors import LimitError
from builder.limits import LimitOptions
from builder.targets.openvino import build
from triton_repo import layout
from triton_repo.launch.probe import ask
from triton_repo.launch.triton import LaunchConfig, Triton
from triton_repo.layout import Part
from triton_repo.lint import lint
from triton_repo.runtime.embedding.batches import Limits, calls, texts
from triton_repo.served import ServedEmbedding
from triton_repo.settings.options import RepositoryOptions
from trtbuild.launching import probe_requests

Array = NDArray[Any]

LIMITS = Limits(max_seq_len=MAX_SEQ_LEN, max_batch_size=8, max_num_tokens=64, vocab_size=56)
WORDS = ["the", "cat", "sat", "on", "a", "mat", "dog", "ran"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An engine of 8 texts a call, and 64 tokens."""
    root = tmp_path_factory.mktemp("encoder")
    model = write_encoder(root / "minibert")
    convert(model, root / "checkpoint", options=ConvertOptions(dtype="float32"))
    limits = LimitOptions(max_batch_size=8, max_num_tokens=64)
    build(root / "checkpoint", root / "engine", options=limits)
    return root / "engine"


@pytest.fixture(scope="module")
def repository(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder called writer, and the encoder."""
    root = tmp_path_factory.mktemp("both")
    parts = [Part(engine=make_engine(root / "engine"), name="writer"), Part(engine=encoder)]
    layout.write_parts(parts, root / "repo")
    return root / "repo"


@pytest.fixture(scope="module")
def triton(repository: Path) -> Iterator[Triton]:
    config = LaunchConfig(
        repository=repository,
        log_path=repository.parent / "triton.log",
        python_backends={"tensorrtllm": ECHO_BACKEND},
        grace_s=3,
    )
    with Triton(config) as started:
        yield started


def request(*rows: list[int]) -> dict[str, Array]:
    ids = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for row, given_ids in zip(ids, rows, strict=True):
        row[: len(given_ids)] = given_ids
    return {"input_ids": ids, "input_lengths": np.array([[len(row)] for row in rows], np.int32)}


def sentence(words: int) -> list[int]:
    return [2, *(VOCABULARY.index(WORDS[n % len(WORDS)]) for n in range(words)), 3]


def test_the_manifest_says_which_engine_embeds(repository: Path) -> None:
    writer, embedder = layout.describe(repository).engines
    assert writer.embedding is None
    assert writer.model == "writer_tensorrt_llm"
    assert embedder.models == {"embedding": "minibert_embedding"}
    assert embedder.embedding == ServedEmbedding(
        dimensions=32, normalize=True, matryoshka_dimensions=None
    )
    assert (embedder.model, embedder.max_seq_len) == ("minibert_embedding", MAX_SEQ_LEN)
    assert (embedder.tokenizer_dir / "tokenizer.json").is_file()
    assert layout.check(repository).kind == "repository"


def test_a_changed_config_is_found(encoder: Path, tmp_path: Path) -> None:
    layout.write_repository(encoder, tmp_path / "repo")
    config = tmp_path / "repo" / "embedding" / "config.pbtxt"
    text = config.read_text().replace("TYPE_FP32", "TYPE_FP16")
    config.write_text(text.replace("max_batch_size: 8", "max_batch_size: 9"))
    found = {finding.field for finding in lint(tmp_path / "repo", files=False)}
    assert found == {"output embedding data_type", "max_batch_size"}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"options": RepositoryOptions(max_beam_width=2)}, "max_beam_width is for engines"),
        ({"options": RepositoryOptions(triton_max_batch_size=9)}, "at most the engine's 8"),
        ({"adapters": {"one": Path("one")}}, "--lora"),
        ({"draft": Path("draft")}, "--draft"),
    ],
)
def test_what_an_encoder_cant_honour_is_refused(
    changes: dict[str, Any], complaint: str, encoder: Path, tmp_path: Path
) -> None:
    part = replace(Part(engine=encoder), **changes)
    with pytest.raises(LimitError, match=complaint):
        layout.write_parts([part], tmp_path / "repo")


def test_an_encoder_cant_draft(encoder: Path, tmp_path: Path) -> None:
    part = Part(engine=make_engine(tmp_path / "engine"), draft=encoder)
    with pytest.raises(LimitError, match="can't draft"):
        layout.write_parts([part], tmp_path / "repo")


@given(st.lists(st.integers(1, MAX_SEQ_LEN), max_size=60))
def test_every_text_is_in_one_call_and_no_call_is_too_large(lengths: list[int]) -> None:
    made = list(calls(lengths, LIMITS))
    assert sorted(place for places in made for place in places) == list(range(len(lengths)))
    for places in made:
        assert len(places) <= LIMITS.max_batch_size
        assert len(places) * max(lengths[place] for place in places) <= LIMITS.max_num_tokens


@pytest.mark.parametrize(
    ("ids", "lengths", "complaint"),
    [
        ([[2, 3]], [3], "input_lengths: 1 to 2 tokens"),
        ([[2, 3]], [0], "input_lengths: 1 to 2 tokens"),
        ([[2, 3]], [2, 2], "input_lengths: one length for each of 1"),
        ([[2] * 25], [25], "input_ids: at most 24 tokens, found 25"),
        ([[2, 56]], [2], "input_ids: ids are from 0 to 55"),
        ([[2, -1]], [2], "input_ids: ids are from 0 to 55"),
    ],
)
def test_what_the_engine_cant_take_is_refused_by_name(
    ids: list[list[int]], lengths: list[int], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        texts(np.array(ids), np.array(lengths)[:, None], LIMITS)


@pytest.mark.triton
def test_many_at_once_get_their_own_embeddings_in_few_calls(triton: Triton) -> None:
    asked = [sentence(n % (MAX_SEQ_LEN - 2) + 1) for n in range(120)]
    answers: queue.Queue[Any] = queue.Queue()
    with running.client(triton) as client:

        def counts() -> Any:
            return client.get_inference_statistics("minibert_embedding").model_stats[0]

        before = counts()
        for n, ids in enumerate(asked):
            client.async_infer(
                "minibert_embedding",
                running.tensors(request(ids)),
                lambda result, error: answers.put((result, error)),
                request_id=str(n),
            )
        for _ in asked:
            result, error = answers.get(timeout=60)
            assert error is None
            ids = asked[int(result.get_response().id)]
            found = result.as_numpy("embedding")
            np.testing.assert_allclose(found, [expected_embedding(FIELDS, ids)], atol=2e-6)
        # Triton counts what it has answered already
        until(lambda: counts().inference_count - before.inference_count == len(asked))
        assert counts().execution_count - before.execution_count < len(asked)


@pytest.mark.triton
def test_one_request_may_have_several_texts(triton: Triton) -> None:
    rows = [sentence(9), sentence(2), sentence(20)]
    found = running.infer(triton, "minibert_embedding", request(*rows)).as_numpy("embedding")
    expected = [expected_embedding(FIELDS, ids) for ids in rows]
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.triton
def test_a_refused_request_harms_no_other(triton: Triton) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    with running.client(triton) as client:
        for ids in ([2, 3], [2, 9999, 3], [2, 4, 3]):
            client.async_infer(
                "minibert_embedding",
                running.tensors(request(ids)),
                lambda result, error: answers.put((result, error)),
            )
        failures = [error for _, error in (answers.get(timeout=60) for _ in range(3)) if error]
    (failure,) = failures
    assert isinstance(failure, InferenceServerException)
    assert "INVALID_ARGUMENT" in str(failure.status())
    assert "input_ids: ids are from 0 to" in failure.message()


@pytest.mark.triton
def test_the_probe_gets_an_embedding(triton: Triton, repository: Path) -> None:
    requests = probe_requests(layout.describe(repository))
    asked = requests["minibert_embedding"]
    assert ask(triton.http_address, "minibert_embedding", asked, timeout_s=30) < 30
