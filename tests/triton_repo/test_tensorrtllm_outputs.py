"""Promise: `tensorrt_llm` on a CPU answers with the C++ backend's tensors, in its shapes."""

from __future__ import annotations

import re
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from backend_repository import BEAMS, VOCAB, ask, engine, inputs, one, serving
from running import stream
from tokenizers import Tokenizer
from tritonclient.utils import InferenceServerException
from waiting import until

from builder.targets.tensorrt_llm.flags import LORA_MODULES
from triton_repo.launch.triton import Triton

pytestmark = pytest.mark.triton

PROMPT = [5, 6, 7, 9]
HIDDEN = 128
YES = one(True, np.bool_)


@pytest.fixture(scope="module")
def model(tiny_models: dict[str, Path]) -> Path:
    return tiny_models["llama"]


@pytest.fixture(scope="module")
def triton(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    """A real Triton with our executor behind it."""
    folder = tmp_path_factory.mktemp("outputs")
    with serving(engine(model, folder), folder) as running:
        yield running


def answers(triton: Triton, tokens: int, **more: np.ndarray) -> list[Any]:
    return stream(triton, "tensorrt_llm", inputs(PROMPT, tokens, **more))


def tensor_names(result: Any) -> set[str]:
    return {output.name for output in result.get_response().outputs}


def test_what_was_not_asked_for_is_not_there(triton: Triton) -> None:
    (result,) = answers(triton, 5)
    assert tensor_names(result) == {"output_ids", "sequence_length"}
    assert result.as_numpy("output_ids").shape == (1, 1, 5)
    assert result.as_numpy("sequence_length").tolist() == [[5]]


def test_the_prompt_comes_first_where_it_is_not_excluded(triton: Triton) -> None:
    (result,) = answers(triton, 5, exclude_input_in_output=one(False, np.bool_))
    assert result.as_numpy("output_ids")[0, 0].tolist() == PROMPT + ask(triton, PROMPT, 5)
    assert result.as_numpy("sequence_length").tolist() == [[9]]


def test_a_stream_counts_its_tokens_response_by_response(triton: Triton) -> None:
    counted = {"return_num_input_tokens": YES, "return_num_output_tokens": YES}
    results = answers(triton, 20, streaming=YES, **counted)
    sizes = [result.as_numpy("output_ids").shape[-1] for result in results]
    assert [result.as_numpy("num_output_tokens").item() for result in results] == sizes
    assert sum(sizes) == 20
    assert {result.as_numpy("num_input_tokens").item() for result in results} == {len(PROMPT)}


def test_logits_are_the_models_own_rows(triton: Triton) -> None:
    asked = {"return_context_logits": YES, "return_generation_logits": YES, "return_log_probs": YES}
    (result,) = answers(triton, 6, **asked)
    context, generation = result.as_numpy("context_logits"), result.as_numpy("generation_logits")
    assert context.shape == (1, len(PROMPT), VOCAB)
    assert generation.shape == (1, 1, 6, VOCAB)
    ids = result.as_numpy("output_ids")[0, 0]
    assert generation[0, 0].argmax(axis=1).tolist() == ids.tolist()
    np.testing.assert_allclose(context[0, -1], generation[0, 0, 0], rtol=1e-4, atol=1e-5)
    weights = np.exp(generation[0, 0].astype(np.float64))
    expected = np.log(weights / weights.sum(axis=1, keepdims=True))[np.arange(6), ids]
    found = result.as_numpy("output_log_probs")
    assert found.shape == (1, 1, 6)
    np.testing.assert_allclose(found[0, 0], expected, atol=1e-3)
    assert result.as_numpy("cum_log_probs") == pytest.approx(np.array([[expected.sum()]]), abs=1e-3)


def test_a_stream_sums_its_log_probabilities(triton: Triton) -> None:
    results = answers(triton, 12, streaming=YES, return_log_probs=YES)
    parts = [result.as_numpy("output_log_probs")[0, 0] for result in results]
    sums = np.cumsum([part.sum() for part in parts])
    found = [result.as_numpy("cum_log_probs").item() for result in results]
    np.testing.assert_allclose(found, sums, rtol=1e-4)


def test_beams_come_in_one_response_the_best_first(triton: Triton) -> None:
    width = one(BEAMS, np.int32)
    (result,) = answers(triton, 6, beam_width=width, return_log_probs=YES)
    assert result.as_numpy("output_ids").shape == (1, BEAMS, 6)
    assert result.as_numpy("sequence_length").tolist() == [[6] * BEAMS]
    sums = result.as_numpy("cum_log_probs")[0]
    assert sums.tolist() == sorted(sums, reverse=True)
    np.testing.assert_allclose(result.as_numpy("output_log_probs")[0].sum(axis=1), sums, rtol=1e-3)


def test_returned_sequences_carry_their_index(triton: Triton) -> None:
    many = {"num_return_sequences": one(3, np.int32), "runtime_top_p": one(1.0, np.float32)}
    results = answers(triton, 6, **many)
    indices = [result.as_numpy("sequence_index").item() for result in results]
    assert sorted(indices) == [0, 1, 2]
    texts = {tuple(result.as_numpy("output_ids")[0, 0].tolist()) for result in results}
    assert len(texts) > 1, "each has a seed of its own"


def test_a_batch_of_prompts_is_answered_row_by_row(triton: Triton) -> None:
    request = {
        "input_ids": np.array([[5, 6, 7], [9, 8, 0]], np.int32),
        "input_lengths": np.array([[3], [2]], np.int32),
        "request_output_len": np.array([[4], [7]], np.int32),
    }
    results = stream(triton, "tensorrt_llm", request)
    found = {
        result.as_numpy("batch_index").item(): result.as_numpy("output_ids")[0, 0].tolist()
        for result in results
    }
    assert found == {0: ask(triton, [5, 6, 7], 4), 1: ask(triton, [9, 8], 7)}


def test_the_times_of_a_request_are_in_order_and_its_blocks_counted(triton: Triton) -> None:
    prompt = [11, 12] * 40
    stream(triton, "tensorrt_llm", inputs(prompt, 3))
    results = stream(
        triton, "tensorrt_llm", inputs(prompt, 8, return_perf_metrics=YES, streaming=YES)
    )
    last = results[-1]
    times = [
        last.as_numpy(f"{name}_time_ns").item()
        for name in ("arrival", "first_scheduled", "first_token", "last_token")
    ]
    assert times == sorted(times)
    assert last.as_numpy("kv_cache_reused_blocks").item() == 2
    assert last.as_numpy("kv_cache_alloc_total_blocks").item() >= 1
    assert last.as_numpy("acceptance_rate").item() == 0
    assert last.as_numpy("total_draft_tokens").shape == (1, 1)


def test_drafts_are_counted_and_change_nothing(triton: Triton) -> None:
    plain = ask(triton, PROMPT, 8)
    drafts = np.array([[*plain[:3], (plain[3] + 1) % VOCAB]], np.int32)
    results = answers(triton, 8, draft_input_ids=drafts, return_perf_metrics=YES)
    (result,) = results
    assert result.as_numpy("output_ids")[0, 0].tolist() == plain
    assert result.as_numpy("total_draft_tokens").item() == 4
    assert result.as_numpy("total_accepted_draft_tokens").item() == 3
    assert result.as_numpy("acceptance_rate").item() == pytest.approx(0.75)


def guided(kind: str, text: str) -> dict[str, np.ndarray]:
    return {
        "guided_decoding_guide_type": one(kind.encode(), np.object_),
        "guided_decoding_guide": one(text.encode(), np.object_),
    }


def test_a_guided_answer_keeps_to_its_grammar_and_ends(triton: Triton, model: Path) -> None:
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    pattern = "(yes|no), [0-9]{3}"
    for more in ({}, {"runtime_top_p": one(1.0, np.float32)}, {"beam_width": one(1, np.int32)}):
        ids = ask(triton, PROMPT, 40, **guided("regex", pattern), **more)
        assert re.fullmatch(pattern, tokenizer.decode(ids)), tokenizer.decode(ids)


def test_returned_sequences_follow_the_guide_each_by_itself(triton: Triton, model: Path) -> None:
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    many = {"num_return_sequences": one(4, np.int32), "runtime_top_p": one(1.0, np.float32)}
    results = answers(triton, 40, **guided("ebnf_grammar", 'root ::= [a-z]{4} | "#" [0-9]'), **many)
    assert len(results) == 4
    for result in results:
        text = tokenizer.decode(result.as_numpy("output_ids")[0, 0].tolist())
        assert re.fullmatch("[a-z]{4}|#[0-9]", text), text


def test_a_bad_grammar_fails_alone_while_others_go_on(triton: Triton) -> None:
    found: list[int] = []
    asking = threading.Thread(target=lambda: found.extend(ask(triton, PROMPT, 300)))
    asking.start()
    while asking.is_alive():
        with pytest.raises(InferenceServerException, match="guided_decoding_guide is not a regex"):
            ask(triton, PROMPT, 5, **guided("regex", "("))
    assert found == ask(triton, PROMPT, 300)


def metrics(triton: Triton) -> dict[str, float]:
    """Sample → value; the label set is part of the name."""
    with urllib.request.urlopen(f"http://{triton.metrics_address}/metrics", timeout=20) as page:
        lines = page.read().decode().splitlines()
    samples = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
    return {name: float(value) for name, value in samples}


UPSTREAM = {
    ("nv_trt_llm_request_metrics", "request_type"): "active max scheduled context waiting",
    ("nv_trt_llm_runtime_memory_metrics", "memory_type"): "cpu gpu pinned",
    (
        "nv_trt_llm_kv_cache_block_metrics",
        "kv_cache_block_type",
    ): "max free used tokens_per reused fraction",
    (
        "nv_trt_llm_inflight_batcher_metrics",
        "inflight_batcher_specific_metric",
    ): "total_context_tokens generation_requests micro_batch_id paused_requests",
    ("nv_trt_llm_general_metrics", "general_type"): "timestamp iteration_counter",
    (
        "nv_trt_llm_disaggregated_serving_metrics",
        "disaggregated_serving_type",
    ): "kv_cache_transfer_ms request_count",
    ("nv_llm_input_token_len_count", "response_metric_type"): "total_input_tokens",
    ("nv_llm_output_token_len_count", "response_metric_type"): "total_output_tokens",
}
"""Upstream's metrics reporter: family and its own label → that label's values."""

_SAMPLE = re.compile(r"(nv_(?:trt_)?llm_\w+)\{(.*)\}")


def test_metrics_have_upstreams_names_and_labels(triton: Triton) -> None:
    found: dict[tuple[str, str], set[str]] = {}
    for sample in metrics(triton):
        match = _SAMPLE.fullmatch(sample)
        if match is None or match[1].endswith(("_bucket", "_sum")):
            continue
        labels = dict(re.findall(r'(\w+)="([^"]*)"', match[2]))
        assert (labels.pop("model"), labels.pop("version")) == ("tensorrt_llm", "1")
        ((label, value),) = labels.items()
        found.setdefault((match[1], label), set()).add(value)
    assert found == {key: set(values.split()) for key, values in UPSTREAM.items()}


@pytest.mark.parametrize("file", ["grafana/dashboards/trtbuild.json", "prometheus/alerts.yml"])
def test_what_dashboard_and_alerts_look_at_is_there(triton: Triton, file: str) -> None:
    text = (Path(__file__).parents[2] / "docker" / file).read_text().replace('\\"', '"')
    have = {(name, value) for (name, _), values in UPSTREAM.items() for value in values.split()}
    looked_at = set(re.findall(r'(nv_trt_llm_\w+)\{\w+="(\w+)"\}', text))
    assert looked_at
    assert looked_at <= have


def sample(found: dict[str, float], name: str, **label: str) -> float:
    """The sample of a metric with a label, beside those of the model."""
    labels = {"model": "tensorrt_llm", "version": "1", **label}
    inner = ",".join(f'{key}="{labels[key]}"' for key in sorted(labels))
    return found[f"{name}{{{inner}}}"]


def test_metrics_tell_what_the_executor_did(triton: Triton) -> None:
    def lengths(what: str) -> float:
        name = f"nv_llm_output_token_len_{what}"
        return sample(metrics(triton), name, response_metric_type="total_output_tokens")

    def settled() -> bool:
        """Whether what other tests asked for has been counted, which happens every 0.1 s."""
        before = lengths("count")
        time.sleep(1)
        return lengths("count") == before

    until(settled)
    count, total = lengths("count"), lengths("sum")
    ask(triton, [7] * 20, 30)
    until(lambda: lengths("count") > count)
    assert lengths("sum") - total == 30
    blocks = {
        kind: sample(metrics(triton), "nv_trt_llm_kv_cache_block_metrics", kv_cache_block_type=kind)
        for kind in ("max", "free", "used", "tokens_per")
    }
    assert blocks["free"] == blocks["max"] > 0
    assert blocks["used"] == 0
    assert blocks["tokens_per"] == 32


def adapter(task_id: int, seed: int | None) -> dict[str, np.ndarray]:
    """The tensors of an adapter of rank 2 of layer 0's queries; by its id alone without a seed."""
    tensors = {"lora_task_id": one(task_id, np.uint64)}
    if seed is not None:
        values = np.random.default_rng(seed).normal(size=2 * (HIDDEN + HIDDEN))
        tensors["lora_weights"] = values.astype(np.float16)[None, None]
        tensors["lora_config"] = np.array([[[LORA_MODULES["attn_q"], 0, 2]]], np.int32)
    return tensors


def test_an_adapter_comes_once_and_is_then_called_by_its_id(triton: Triton) -> None:
    plain = ask(triton, PROMPT, 20)
    first, second = (ask(triton, PROMPT, 20, **adapter(n, seed=n)) for n in (1, 2))
    assert len({tuple(plain), tuple(first), tuple(second)}) == 3
    calls: list[dict[str, np.ndarray]] = [{}, adapter(1, None), adapter(2, None)]
    with ThreadPoolExecutor(6) as clients:
        mixed = list(clients.map(lambda more: ask(triton, PROMPT, 20, **more), calls * 2))
    assert mixed == [plain, first, second] * 2
    with pytest.raises(InferenceServerException, match="lora_task_id: LoRA task 3 not found"):
        ask(triton, PROMPT, 20, **adapter(3, None))
