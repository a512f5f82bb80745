"""Promise: what a real engine gives reaches plain clients as text: drafted, scored, conversed.

Two models stand in one repository, one whose draft is right each time, and one whose draft is
another model, which is seldom right.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import backend_repository
import numpy as np
import pytest
from plain_clients import generate
from running import stream
from tiny_engine import EngineOf
from transformers import AutoTokenizer

from text.tokenizer_folder import TokenizerFolder
from triton_repo.launch.triton import LaunchConfig, Triton
from triton_repo.layout import Part, write_parts

pytestmark = pytest.mark.triton

PROMPTS = ("Grüße aus Köln", "def f(a):\n    return a\n", "日本語", "  two")
TOKENS = 24


@pytest.fixture(scope="module")
def engine(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return backend_repository.engine(tiny_models["llama"], tmp_path_factory.mktemp("engine"))


@pytest.fixture(scope="module")
def triton(
    engine: Path, engine_of: EngineOf, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Triton]:
    folder = tmp_path_factory.mktemp("drafted")
    parts = [
        Part(engine=engine, name="right", draft=engine),
        Part(engine=engine, name="wrong", draft=engine_of("qwen2")),
    ]
    write_parts(parts, folder / "repo")
    with Triton(LaunchConfig(repository=folder / "repo", log_path=folder / "log")) as running:
        yield running


def ask(triton: Triton, model: str, prompt: str, **more: Any) -> dict[str, Any]:
    """The one answer of /generate, or a stream's with its texts joined."""
    body = {"text_input": prompt, "max_tokens": TOKENS, "top_k": 1, **more}
    parts = generate(triton, model, body)
    return {**parts[-1], "text_output": "".join("".join(part["text_output"]) for part in parts)}


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("name", ["right", "wrong"])
def test_a_drafted_text_is_the_engines_own(triton: Triton, name: str, streaming: bool) -> None:
    for prompt in PROMPTS:
        plain = ask(triton, "right_ensemble", prompt)
        drafted = ask(
            triton, f"{name}_tensorrt_llm_bls", prompt, num_draft_tokens=5, stream=streaming
        )
        assert drafted["text_output"] == plain["text_output"]
        assert drafted["finish_reason"] == plain["finish_reason"]


def test_an_answer_may_begin_with_its_prompt(triton: Triton) -> None:
    for prompt in PROMPTS:
        alone = ask(triton, "right_ensemble", prompt)["text_output"]
        both = ask(triton, "right_ensemble", prompt, exclude_input_in_output=False)
        assert both["text_output"] == prompt + alone


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"guided_decoding_guide": "[", "guided_decoding_guide_type": "regex"}, "guide"),
        ({"lora_task_id": 3}, "lora_task_id"),
    ],
)
def test_a_clients_own_fault_is_told_as_such_by_every_model(
    triton: Triton, fault: dict[str, Any], says: str
) -> None:
    text = {"text_input": "a", "max_tokens": 3}
    ids = {"input_ids": [5], "input_lengths": 1, "request_output_len": 3}
    for model, whole in (
        ("right_ensemble", text),
        ("right_tensorrt_llm_bls", text),
        ("right_tensorrt_llm", ids),
    ):
        connection = HTTPConnection(triton.http_address, timeout=60)
        body = {**whole, **fault}
        connection.request("POST", f"/v2/models/{model}/generate", body=json.dumps(body))
        response = connection.getresponse()
        said = response.read().decode()
        connection.close()
        assert (response.status, says in said) == (400, True), said


def test_how_many_drafts_were_right_is_told(triton: Triton) -> None:
    more = {"num_draft_tokens": 5, "return_perf_metrics": True}
    right = ask(triton, "right_tensorrt_llm_bls", PROMPTS[0], **more)
    wrong = ask(triton, "wrong_tensorrt_llm_bls", PROMPTS[0], **more)
    assert right["acceptance_rate"] == 1
    assert right["total_accepted_draft_tokens"] == right["total_draft_tokens"] > 0
    assert wrong["total_accepted_draft_tokens"] < wrong["total_draft_tokens"]


def test_a_stop_string_ends_a_drafted_answer(triton: Triton) -> None:
    whole = ask(triton, "right_ensemble", PROMPTS[0])["text_output"]
    stop = whole[5:8]
    cut = ask(triton, "right_tensorrt_llm_bls", PROMPTS[0], num_draft_tokens=5, stop_words=stop)
    assert cut["text_output"] == whole[: whole.index(stop)]
    assert cut["finish_reason"] == "stop"


def test_log_probs_and_counts_are_those_of_the_engine(triton: Triton, engine: Path) -> None:
    prompt = PROMPTS[1]
    tokenizer = TokenizerFolder(engine).tokenizer
    ids = tokenizer.encode(prompt).ids
    true = np.array([[True]])
    (own,) = stream(
        triton,
        "right_tensorrt_llm",
        {
            "input_ids": np.array([ids], np.int32),
            "input_lengths": np.array([[len(ids)]], np.int32),
            "request_output_len": np.array([[TOKENS]], np.int32),
            "end_id": np.array([[-1]], np.int32),
            "runtime_top_k": np.array([[1]], np.int32),
            "return_log_probs": true,
            "exclude_input_in_output": true,
        },
    )
    flags = (
        "return_log_probs",
        "return_num_input_tokens",
        "return_num_output_tokens",
        "return_perf_metrics",
    )
    wanted = dict.fromkeys(flags, True)
    found = [
        ask(triton, "right_ensemble", prompt, end_id=-1, **wanted),
        # in parts that are joined again
        ask(triton, "right_ensemble", prompt, end_id=-1, stop_words="never this", **wanted),
    ]
    for answer in found:
        expected = own.as_numpy("output_log_probs").reshape(-1)[:TOKENS]
        assert answer["output_log_probs"] == pytest.approx(expected.tolist(), abs=1e-4)
        assert answer["cum_log_probs"] == pytest.approx(float(expected.sum()), abs=1e-3)
        assert answer["num_input_tokens"] == len(ids)
        assert answer["num_output_tokens"] == TOKENS
        assert answer["last_token_time_ns"] > answer["first_token_time_ns"] > 0


def test_a_conversation_is_rendered_by_the_models_template(triton: Triton, engine: Path) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "Grüße 日本"}]}]
    plain = [{"role": "user", "content": "Grüße 日本"}]
    template = AutoTokenizer.from_pretrained(str(engine))
    rendered = template.apply_chat_template(plain, tokenize=False, add_generation_prompt=True)
    ids = template.encode(rendered, add_special_tokens=False)
    for model in ("right_ensemble", "right_tensorrt_llm_bls"):
        body = {
            "messages": json.dumps(messages),
            "max_tokens": TOKENS,
            "top_k": 1,
            "return_num_input_tokens": True,
        }
        (answer,) = generate(triton, model, body)
        assert answer["num_input_tokens"] == len(ids)
        assert answer["text_output"] == _by_ids(triton, engine, ids)


def _by_ids(triton: Triton, engine: Path, ids: list[int]) -> str:
    result = _of_engine(triton, engine, ids, runtime_top_k=np.array([[1]], np.int32))
    length = result.as_numpy("sequence_length")[0, 0]
    found = result.as_numpy("output_ids")[0, 0][:length].tolist()
    text: str = TokenizerFolder(engine).tokenizer.decode(found, skip_special_tokens=True)
    return text


def _of_engine(triton: Triton, engine: Path, ids: list[int], **more: np.ndarray) -> Any:
    """The engine's own one response to token ids."""
    inputs = {
        "input_ids": np.array([ids], np.int32),
        "input_lengths": np.array([[len(ids)]], np.int32),
        "request_output_len": np.array([[TOKENS]], np.int32),
        "end_id": np.array([[TokenizerFolder(engine).eos_ids[0]]], np.int32),
        "exclude_input_in_output": np.array([[True]]),
    }
    (result,) = stream(triton, "right_tensorrt_llm", {**inputs, **more})
    return result


def test_several_sequences_are_told_apart(triton: Triton) -> None:
    prompt = np.array([[PROMPTS[0].encode()]], dtype=np.object_)
    for streaming in (True, False):
        results = stream(
            triton,
            "right_ensemble",
            {
                "text_input": prompt,
                "max_tokens": np.array([[TOKENS]], np.int32),
                "num_return_sequences": np.array([[3]], np.int32),
                "top_k": np.array([[1]], np.int32),
                "stream": np.array([[streaming]]),
            },
        )
        texts = ["", "", ""]
        for result in results:
            index = int(result.as_numpy("sequence_index").reshape(-1)[0])
            texts[index] += result.as_numpy("text_output")[0, 0].decode()
        assert texts == [ask(triton, "right_ensemble", PROMPTS[0])["text_output"]] * 3


def test_every_beam_has_its_text_and_its_score(triton: Triton, engine: Path) -> None:
    folder = TokenizerFolder(engine)
    ids = folder.tokenizer.encode(PROMPTS[0]).ids
    more = {"beam_width": np.array([[3]], np.int32), "return_log_probs": np.array([[True]])}
    own = _of_engine(triton, engine, ids, **more)
    pairs = zip(own.as_numpy("output_ids")[0], own.as_numpy("sequence_length")[0], strict=True)
    found = [row[:length].tolist() for row, length in pairs]
    expected = [folder.tokenizer.decode(row, skip_special_tokens=True) for row in found]
    assert len(set(expected)) == 3
    answer = ask(triton, "right_ensemble", PROMPTS[0], beam_width=3, return_log_probs=True)
    assert answer["text_output"] == "".join(expected)
    assert len(answer["finish_reason"]) == 3
    assert answer["cum_log_probs"] == pytest.approx(own.as_numpy("cum_log_probs")[0].tolist())
