"""Promise: clients of upstream's llmapi model and of tensorrt_llm are served by the one model.

Triton is real, TensorRT-LLM is a strict stand-in (`stand_in_tensorrt_llm`) whose tokens count: what
TensorRT-LLM itself would do is not shown here.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llmapi_repository import aborted, calls, make_model, make_repository
from openai import OpenAI
from running import client, stream, tensors, text
from token_batches import next_batch
from tokenizers import Tokenizer
from tritonclient.utils import InferenceServerException
from waiting import until

from builder.errors import LaunchError
from server.backend.base import BeamSearch, GenerateRequest, Guide, Tokens
from server.backend.triton import TritonBackend
from server.config import ServedModel, ServerConfig
from triton_repo.launch.ports import free_ports
from triton_repo.launch.triton import LaunchConfig, Triton

pytestmark = pytest.mark.triton

MODEL = "tensorrt_llm"
VOCAB, EOS = 384, 2


@pytest.fixture(scope="module")
def repository(tiny_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's, its files and two adapters in it."""
    folder = tmp_path_factory.mktemp("llmapi")
    return make_repository(make_model(folder / "model", tiny_tokenizer), folder)


@pytest.fixture(scope="module")
def triton(repository: Path) -> Iterator[Triton]:
    """A real Triton on it."""
    config = LaunchConfig(repository=repository, log_path=repository.with_name("log"), grace_s=3)
    with Triton(config) as running:
        yield running


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer: Path) -> Tokenizer:
    return Tokenizer.from_file(str(tiny_tokenizer / "tokenizer.json"))


def one(value: Any, dtype: type) -> np.ndarray:
    return np.array([[value]], dtype)


def int32(value: int) -> np.ndarray:
    return one(value, np.int32)


def yes() -> np.ndarray:
    return one(True, np.bool_)


def of_ids(ids: list[int], count: int, **others: np.ndarray) -> dict[str, np.ndarray]:
    """As clients of tensorrt_llm ask."""
    return {
        "input_ids": np.array([ids], np.int32),
        "input_lengths": int32(len(ids)),
        "request_output_len": int32(count),
        "exclude_input_in_output": yes(),
        **others,
    }


def ids_of(results: list[Any]) -> list[int]:
    return [int(token) for result in results for token in result.as_numpy("output_ids").ravel()]


def text_of(results: list[Any]) -> str:
    return b"".join(result.as_numpy("text_output").ravel()[0] for result in results).decode()


def last(results: list[Any], name: str) -> Any:
    return results[-1].as_numpy(name).ravel()[0]


def generate(triton: Triton, verb: str = "generate", **fields: Any) -> list[dict[str, Any]]:
    """The answers of /generate, or of /generate_stream."""
    request = urllib.request.Request(
        f"http://{triton.http_address}/v2/models/{MODEL}/{verb}", data=json.dumps(fields).encode()
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        lines = answer.read().decode().splitlines()
    return [json.loads(line.removeprefix("data: ")) for line in lines if line]


def test_ids_in_ids_out_whole_and_in_a_stream(triton: Triton) -> None:
    asked = of_ids([5, 6, 7], 20)
    whole = stream(triton, MODEL, asked)
    streamed = stream(triton, MODEL, {**asked, "streaming": yes()})
    assert len(whole) == 1
    assert ids_of(whole) == ids_of(streamed) == list(range(8, 28))
    assert sum(int(r.as_numpy("sequence_length").ravel()[0]) for r in streamed) == 20
    assert [last(found, "num_input_tokens") for found in (whole, streamed)] == [3, 3]
    assert [last(found, "num_output_tokens") for found in (whole, streamed)] == [20, 20]
    assert {last(found, "finish_reason") for found in (whole, streamed)} == {b"length"}


def test_text_in_text_out_whole_and_in_a_stream(triton: Triton, tokenizer: Tokenizer) -> None:
    prompt = tokenizer.decode([70, 71])
    asked = {"text_input": text([prompt]), "sampling_param_max_tokens": int32(400)}
    first = tokenizer.encode(prompt).ids[-1] + 1
    wanted = tokenizer.decode([*range(first, VOCAB), 0, 1])
    streamed = stream(triton, MODEL, {**asked, "streaming": yes()})
    assert text_of(stream(triton, MODEL, asked)) == wanted
    assert text_of(streamed) == wanted
    assert len(streamed) > 10
    assert {last([result], "finish_reason") for result in streamed[:-1]} == {b""}
    assert last(streamed, "finish_reason") == b"stop"


def test_generate_and_generate_stream_give_the_same(triton: Triton) -> None:
    fields = {"text_input": "abc", "sampling_param_max_tokens": 9}
    (whole,) = generate(triton, **fields)
    parts = generate(triton, "generate_stream", **fields, streaming=True)
    assert "".join(part["text_output"] for part in parts) == whole["text_output"]
    assert (whole["finish_reason"], whole["stop_reason"]) == ("length", "")
    assert "cumulative_logprob" not in whole


def test_the_prompt_comes_before_a_whole_answer_when_asked(triton: Triton) -> None:
    no = one(False, np.bool_)
    ids = stream(triton, MODEL, {**of_ids([5, 6], 3), "exclude_input_in_output": no})
    assert ids_of(ids) == [5, 6, 7, 8, 9]
    asked = {"text_input": text(["abc"]), "sampling_param_exclude_input_from_output": no}
    assert text_of(stream(triton, MODEL, asked)).startswith("abc")


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("ends", "wanted", "reason"),
    [
        ({}, [381, 382, 383, 0, 1, 2, 3, 4], b"length"),
        ({"end_id": int32(EOS)}, [381, 382, 383, 0, 1, 2], b"stop"),
        ({"stop_words_list": np.array([[[0], [1]]], np.int32)}, [381, 382, 383, 0], b"stop"),
        (
            {"stop_words_list": np.array([[[9, 382, 383, 0], [1, 3, 4, -1]]], np.int32)},
            [381, 382, 383],
            b"stop",
        ),
        ({"stop_words_list": np.array([[[0, 0], [-1, -1]]], np.int32)}, None, b"length"),
    ],
)
def test_what_ends_an_answer_of_ids_is_part_of_it(
    triton: Triton,
    streaming: bool,
    ends: dict[str, np.ndarray],
    wanted: list[int] | None,
    reason: bytes,
) -> None:
    asked = {**of_ids([380], 8, **ends), "streaming": one(streaming, np.bool_)}
    found = stream(triton, MODEL, asked)
    assert ids_of(found) == (wanted or [381, 382, 383, 0, 1, 2, 3, 4])
    assert last(found, "finish_reason") == reason


@pytest.mark.parametrize("end", [{}, {"end_id": int32(350)}])
def test_a_stop_string_ends_a_text_and_none_of_it_is_seen(
    triton: Triton, tokenizer: Tokenizer, end: dict[str, np.ndarray]
) -> None:
    whole = text_of(stream(triton, MODEL, of_ids([70], 60)))
    stop = whole[20:24]
    asked = {"text_input": text([tokenizer.decode([70])]), "sampling_param_stop": text([stop])}
    asked |= {"max_tokens": int32(60), "streaming": yes(), **end}
    found = stream(triton, MODEL, asked)
    assert text_of(found) == whole[: whole.find(stop)]
    assert (last(found, "finish_reason"), last(found, "stop_reason")) == (b"stop", stop.encode())


def test_log_probs_are_of_the_chosen_tokens_and_add_up(triton: Triton) -> None:
    for streaming in (False, True):
        asked = of_ids([5], 4, return_log_probs=yes(), streaming=one(streaming, np.bool_))
        found = stream(triton, MODEL, asked)
        values = np.concatenate([r.as_numpy("output_log_probs").ravel() for r in found])
        assert values == pytest.approx([-0.006, -0.007, -0.008, -0.009])
        assert last(found, "cum_log_probs") == pytest.approx(-0.03)
        assert last(found, "cumulative_logprob") == pytest.approx(-0.03)


def test_samples_are_answers_of_their_own(triton: Triton) -> None:
    sampled = {"num_return_sequences": int32(2), "runtime_top_p": one(0.5, np.float32)}
    for streaming in (False, True):
        asked = of_ids([5], 3, **sampled, streaming=one(streaming, np.bool_))
        found: dict[int, list[int]] = {0: [], 1: []}
        for result in stream(triton, MODEL, asked):
            found[last([result], "sequence_index")] += ids_of([result])
        assert found == {0: [6, 7, 8], 1: [7, 9, 11]}


def test_beams_are_the_rows_of_one_answer(triton: Triton) -> None:
    (found,) = stream(triton, MODEL, of_ids([5], 3, beam_width=int32(2)))
    assert found.as_numpy("output_ids").tolist() == [[[6, 7, 8], [7, 9, 11]]]
    assert found.as_numpy("text_output").shape == (1, 2)


def test_logits_and_times_are_numbers(triton: Triton) -> None:
    flags = ("return_context_logits", "return_generation_logits", "return_perf_metrics")
    (found,) = stream(triton, MODEL, of_ids([5, 9], 3, **{name: yes() for name in flags}))
    assert found.as_numpy("context_logits").argmax(-1).tolist() == [[5, 9]]
    assert found.as_numpy("generation_logits").argmax(-1).tolist() == [[[10, 11, 12]]]
    assert last([found], "arrival_time_ns") == 10_000
    assert last([found], "last_token_time_ns") == 33_000
    assert last([found], "kv_cache_reused_block") == last([found], "kv_cache_reused_blocks") == 1
    assert last([found], "acceptance_rate") == 0.5


def test_what_is_sampled_means_what_it_means_to_tensorrt_llm(
    triton: Triton, repository: Path
) -> None:
    def asked(**inputs: np.ndarray) -> dict[str, Any]:
        stream(triton, MODEL, of_ids([5], 1, **inputs))
        made = calls(repository)[-1]
        return {name: made.get(name) for name in ("temperature", "top_k", "top_p")}

    temperature = one(0.5, np.float32)
    greedy = {"temperature": None, "top_k": 1, "top_p": None}
    assert asked() == greedy
    assert asked(temperature=temperature) == {**greedy, "temperature": 0.5}
    off = one(0, np.float32)
    assert asked(temperature=temperature, runtime_top_k=int32(4), runtime_top_p=off) == {
        "temperature": 0.5,
        "top_k": 4,
        "top_p": None,
    }
    all_of_it = {"runtime_top_k": int32(0), "runtime_top_p": one(1, np.float32)}
    assert asked(temperature=temperature, **all_of_it) == {
        "temperature": 0.5,
        "top_k": 0,
        "top_p": 1.0,
    }


def test_values_reach_their_fields_and_neutral_ones_none(triton: Triton, repository: Path) -> None:
    neutral = {
        "repetition_penalty": one(1, np.float32),
        "presence_penalty": one(0, np.float32),
        "min_tokens": int32(0),
        "return_context_logits": one(False, np.bool_),
        "runtime_top_p_decay": one(1, np.float32),
    }
    stream(triton, MODEL, of_ids([5], 1, **neutral))
    plain = calls(repository)[-1]
    stream(triton, MODEL, of_ids([5], 1))
    assert calls(repository)[-1] == plain
    told = {
        "repetition_penalty": one(1.5, np.float32),
        "frequency_penalty": one(0.25, np.float32),
        "min_tokens": int32(2),
        "seed": one(2**64 - 1, np.uint64),
        "bad_words_list": np.array([[[6, 9], [1, 2]]], np.int32),
        "embedding_bias": np.zeros((1, VOCAB), np.float32),
    }
    found = stream(triton, MODEL, of_ids([5], 3, **told))
    assert ids_of(found) == [7, 8, 10]
    made = calls(repository)[-1]
    assert (made["repetition_penalty"], made["frequency_penalty"]) == (1.5, 0.25)
    assert (made["min_tokens"], made["seed"]) == (2, 2**64 - 1)
    assert "embedding_bias" in made


def test_a_guide_is_followed(triton: Triton, tokenizer: Tokenizer) -> None:
    guide = '{"type": "object"}'
    asked = {
        "text_input": text(["abc"]),
        "guided_decoding_guide_type": text(["json_schema"]),
        "guided_decoding_guide": text([guide]),
        "max_tokens": int32(50),
    }
    assert text_of(stream(triton, MODEL, asked)) == guide
    asked = of_ids([5], 50, guided_decoding_guide_type=text(["json"]), end_id=int32(EOS))
    assert ids_of(stream(triton, MODEL, asked)) == [*tokenizer.encode("{}").ids, EOS]


@pytest.mark.parametrize(
    "named",
    [
        {"lora_task_id": one(2, np.uint64)},
        {"lora_name": text(["whisper"])},
        {
            "lora_id": one(2, np.uint64),
            "lora_name": text(["whisper"]),
            "lora_path": text(["lora/1/whisper"]),
            "lora_ckpt_source": text(["hf"]),
        },
    ],
    ids=["number", "name", "upstream's three"],
)
def test_an_adapter_is_one_of_the_repository(triton: Triton, named: dict[str, np.ndarray]) -> None:
    assert ids_of(stream(triton, MODEL, of_ids([5], 3, **named))) == [8, 11, 14]


def test_what_the_cache_is_to_keep_is_passed_on(triton: Triton, repository: Path) -> None:
    ranges = {
        "retention_token_range_starts": np.array([[0, 4]], np.int32),
        "retention_token_range_ends": np.array([[4, -1]], np.int32),
        "retention_token_range_priorities": np.array([[90, 10]], np.int32),
        "retention_token_range_durations_ms": np.array([[1500, -1]], np.int32),
        "retention_decode_priority": int32(20),
    }
    stream(triton, MODEL, of_ids([5], 1, **ranges))
    wanted = [[[0, 4, 90, "0:00:01.500000"], [4, None, 10, None]], [20, None]]
    assert calls(repository)[-1]["retention"] == wanted


PLAIN = of_ids([5], 2)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"input_ids": None}, "exactly one of text_input and input_ids"),
        ({"text_input": text(["abc"])}, "exactly one of text_input and input_ids"),
        ({"input_ids": np.array([[-6]], np.int32)}, "input_ids must not be negative"),
        ({"input_ids": np.array([[500]], np.int32)}, "Token ID out of range"),
        ({"input_lengths": int32(2)}, "input_lengths must lie between 1 and the 1"),
        ({"input_ids": np.zeros((1, 200), np.int32), "input_lengths": None}, "exceeds max_input"),
        ({"request_output_len": None}, "request_output_len is missing"),
        ({"request_output_len": int32(0)}, "request_output_len must be at least 1"),
        ({"max_tokens": int32(3)}, "max_tokens must be what the other input"),
        ({"temperature": one(np.nan, np.float32)}, "temperature must be a number"),
        ({"temperature": one(-1, np.float32)}, "temperature must be at least 0"),
        ({"runtime_top_p": one(1.5, np.float32)}, "top_p"),
        ({"repetition_penalty": one(0, np.float32)}, "repetition_penalty must be above 0"),
        ({"stop_words_list": np.array([[[1, 2], [5, -1]]], np.int32)}, "stop_words_list"),
        ({"bad_words_list": np.array([[[1, 2], [2, -1]]], np.int32)}, "bad_words_list"),
        ({"num_return_sequences": int32(2)}, "Greedy decoding"),
        ({"beam_width": int32(2), "streaming": yes()}, "use_beam_search is not supported"),
        ({"beam_width": int32(3)}, "beam_width must be at most 2"),
        ({"beam_width": int32(2), "num_return_sequences": int32(3)}, "num_return_sequences"),
        ({"sampling_param_best_of": int32(2), "streaming": yes()}, "best_of is not supported"),
        ({"lora_task_id": one(3, np.uint64)}, "shout .1., whisper .2.; found 3"),
        ({"lora_path": text(["/etc"])}, "the adapter must be one of this model's"),
        ({"guided_decoding_guide_type": text(["xml"])}, "guided_decoding_guide_type must be"),
        ({"guided_decoding_guide": text(["a"])}, "guided_decoding_guide must have"),
        ({"retention_decode_priority": int32(101)}, "priority"),
        ({"sampling_param_logits_post_processor_name": text(["x"])}, "must be one of model.yaml"),
        ({"draft_input_ids": np.array([[5]], np.int32)}, "draft_input_ids"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(
    triton: Triton, changes: dict[str, np.ndarray | None], says: str
) -> None:
    asked = {name: array for name, array in {**PLAIN, **changes}.items() if array is not None}
    with pytest.raises(InferenceServerException, match=says):
        stream(triton, MODEL, asked)
    assert ids_of(stream(triton, MODEL, PLAIN)) == [6, 7]


def test_an_unknown_field_is_refused_by_name(triton: Triton) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        generate(triton, text_input="abc", max_new_tokens=3)
    assert "max_new_tokens is not supported" in refused.value.read().decode()


def test_sixteen_streams_at_once_get_their_own_tokens(triton: Triton) -> None:
    def ask(first: int) -> list[int]:
        return ids_of(stream(triton, MODEL, of_ids([first], 90, streaming=yes())))

    firsts = range(100, 260, 10)
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(ask, firsts))
    assert found == [list(range(first + 1, first + 91)) for first in firsts]


def open_stream(connection: Any, first: int, request_id: str) -> list[int]:
    """The tokens of a stream that won't end by itself, as they go on coming, once it has begun."""
    found: list[int] = []
    begun = threading.Event()

    def note(result: Any, error: Any) -> None:
        if error is None and result.get_response().outputs:
            found.extend(result.as_numpy("output_ids").ravel())
        begun.set()

    connection.start_stream(note)
    asked = of_ids([first], 10**6, streaming=yes())
    connection.async_stream_infer(MODEL, tensors(asked), request_id=request_id)
    assert begun.wait(60)
    return found


def test_a_client_that_goes_has_its_request_aborted(triton: Triton, repository: Path) -> None:
    with client(triton) as connection:
        open_stream(connection, 301, "goes")
        connection.stop_stream(cancel_requests=True)
    until(lambda: 301 in aborted(repository))


def test_stop_with_its_id_aborts_a_request(triton: Triton, repository: Path) -> None:
    with client(triton) as connection:
        open_stream(connection, 302, "long")
        stream(triton, MODEL, {"stop": yes()}, ids=["long"])
        connection.stop_stream()
    assert 302 in aborted(repository)
    with pytest.raises(InferenceServerException, match="request id"):
        stream(triton, MODEL, {"stop": yes()}, ids=[""])


def test_a_stop_word_of_several_ids_aborts_what_would_go_on(
    triton: Triton, repository: Path
) -> None:
    word = np.array([[[305, 306], [2, -1]]], np.int32)
    assert ids_of(stream(triton, MODEL, of_ids([303], 10**6, stop_words_list=word)))[-1] == 306
    until(lambda: 303 in aborted(repository))


def test_the_llm_apis_figures_are_tritons_metrics(triton: Triton) -> None:
    wanted = {
        'nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="active",version="1"} 5',
        'nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="waiting",version="1"} 3',
        'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="used",model="tensorrt_llm"'
        ',version="1"} 600',
        'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="tensorrt_llm"'
        ',version="1"} 0.6',
    }

    def told() -> set[str]:
        with urllib.request.urlopen(f"http://{triton.metrics_address}/metrics") as answer:
            return set(answer.read().decode().splitlines())

    until(lambda: wanted <= told())


def test_the_proxy_serves_openai_clients_with_it(
    triton: Triton, repository: Path, tokenizer: Tokenizer
) -> None:
    with proxy(repository, triton) as url:
        openai = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60)
        with openai:
            check_openai(openai, tokenizer)
    assert calls(repository)[-1]["detokenize"] is False


def check_openai(openai: OpenAI, tokenizer: Tokenizer) -> None:
    prompt, greedy = "abc", {"temperature": 0, "max_tokens": 12}
    first = tokenizer.encode(prompt).ids[-1] + 1
    whole = openai.completions.create(model="counting", prompt=prompt, logprobs=0, **greedy)
    assert whole.choices[0].text == tokenizer.decode(list(range(first, first + 12)))
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage
    assert whole.usage.completion_tokens == 12
    assert whole.choices[0].logprobs
    values = whole.choices[0].logprobs.token_logprobs
    assert values == pytest.approx([-(first + i) / 1000 for i in range(12)])
    near = next(i for i in range(340, VOCAB) if tokenizer.encode(tokenizer.decode([i])).ids == [i])
    ended = openai.completions.create(model="counting", prompt=[near], max_tokens=90, temperature=0)
    assert ended.choices[0].finish_reason == "stop"
    assert ended.choices[0].text == tokenizer.decode([*range(near + 1, VOCAB)])
    chat: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 60}
    answer = openai.chat.completions.create(model="counting", **chat, temperature=0.5, seed=3)
    content = answer.choices[0].message.content or ""
    stop = content[20:23]
    parts = openai.chat.completions.create(
        model="counting", **chat, temperature=0, stream=True, stop=[stop]
    )
    text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
    assert text == content[: content.find(stop)]


@contextmanager
def proxy(repository: Path, triton: Triton) -> Iterator[str]:
    """`trtbuild serve --only proxy` before this Triton."""
    [port] = free_ports("127.0.0.1", 1)
    command = ["serve", str(repository), "--only", "proxy", "--triton", triton.grpc_address]
    process = subprocess.Popen(
        [sys.executable, "-m", "trtbuild", *command, "--port", str(port)],
    )
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: process.poll() is not None or answers(f"{url}/health"), 120)
        assert process.poll() is None
        yield url
    finally:
        process.terminate()
        process.wait(60)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def test_when_tensorrt_llm_has_failed_it_is_started_again(triton: Triton) -> None:
    for says in ("the executor has failed", "shutting down"):
        with pytest.raises(InferenceServerException, match=says):
            stream(triton, MODEL, of_ids([99], 3))
    until(lambda: triton.restarts == 1 and triton.healthy, 120)
    assert ids_of(stream(triton, MODEL, PLAIN)) == [6, 7]


def test_without_tensorrt_llm_it_is_said_what_to_do(tiny_tokenizer: Path, tmp_path: Path) -> None:
    repository = make_repository(make_model(tmp_path / "model", tiny_tokenizer), tmp_path)
    shutil.rmtree(repository / MODEL / "1" / "tensorrt_llm")
    with pytest.raises(LaunchError, match=r"no TensorRT-LLM.*TensorRT-LLM 1\.2 or later"):
        start(repository)


def test_a_tensorrt_llm_that_is_too_old_is_refused(tiny_tokenizer: Path, tmp_path: Path) -> None:
    settings = {"max_seq_len": "128", "generation_config": "auto"}
    model = make_model(tmp_path / "model", tiny_tokenizer)
    repository = make_repository(model, tmp_path, settings=settings)
    with pytest.raises(LaunchError, match=r"found 1\.3\.0.*TensorRT-LLM 1\.4 or later"):
        start(repository)


def start(repository: Path) -> None:
    with Triton(LaunchConfig(repository=repository, log_path=repository.with_name("log"))):
        pass


async def test_the_proxys_requests_are_honoured_by_their_one_table(triton: Triton) -> None:
    served = ServedModel(
        name="m", tokenizer_dir=Path(), max_seq_len=128, kind="llmapi", vocab_size=VOCAB
    )
    proxy = TritonBackend(ServerConfig(triton_addresses=(triton.grpc_address,), models=(served,)))

    async def answer(**values: Any) -> list[Tokens]:
        asked = {"model": MODEL, "request_id": "r", "input_ids": [10, 11], "max_tokens": 5}
        stream = proxy.generate(GenerateRequest(**{**asked, "end_id": EOS, "seed": 7, **values}))
        found: list[Tokens] = []
        while batch := await next_batch(stream):
            found += batch
        return found

    try:
        plain = await answer(log_probs=True, stop_ids=(300,))
        ids = [token for tokens in plain for token in tokens.ids]
        assert len(ids) == 5
        assert len([value for tokens in plain for value in tokens.log_probs]) == 5
        assert plain[-1].perf is not None
        several = await answer(sequences=2)
        assert {tokens.sequence for tokens in several} == {0, 1}
        [told] = await answer(top_log_probs=1, prompt_log_probs=1)
        assert [top[0][0] for top in told.top] == list(told.ids) == ids
        assert len(told.prompt) == 1
        beams = await answer(beams=BeamSearch(width=2))
        assert [tokens.sequence for tokens in beams] == [0, 1]
        await answer(guide=Guide(kind="json"), adapter_id=1, logit_bias={5: 1.0})
    finally:
        await proxy.close()
