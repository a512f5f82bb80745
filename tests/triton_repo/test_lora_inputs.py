"""Promise: in one batch each request is computed with its own adapter, or with none."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import openvino as ov
import peft_adapters
import pytest
from lora_graph import LoraGraph, chunk_of
from random_model import save
from waiting import until

from builder.convert import ConvertOptions, convert
from builder.errors import RequestError
from builder.limits import LimitOptions
from builder.lora import arrays, read_adapter
from builder.targets.openvino import EngineOptions, build
from triton_repo.executor.adapters import Adapter, Adapters, CacheLimits
from triton_repo.executor.executor import Executor, ExecutorConfig
from triton_repo.executor.lora import LoraInputs
from triton_repo.executor.request import Request

LIMITS = LimitOptions(max_batch_size=16, max_num_tokens=64, kv_cache_gib=0.02, max_seq_len=128)
ATTENTION = ["q_proj", "v_proj"]
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TARGETS = {
    "llama": (ATTENTION, ALL),
    "qwen2": (["up_proj"], ALL),
    "gpt2": (["c_attn"], ["c_attn", "c_proj", "c_fc"]),
}
"""Model → what its two adapters change."""
GPT2 = {"vocab_size": 384, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128}
RNG = np.random.default_rng(6)
PROMPTS = [RNG.integers(3, 384, size=size).tolist() for size in (40, 33, 50, 20, 44)]
OWNERS = (1, None, 2, 2, 1)


def relative_error(found: Any, expected: Any) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@dataclass(frozen=True, kw_only=True)
class Adapted:
    """A tiny model's float32 engine, and its two adapters by task id."""

    model: Path
    engine: Path
    folders: dict[int, Path]

    @property
    def config(self) -> dict[str, Any]:
        config: dict[str, Any] = json.loads((self.engine / "config.json").read_text())
        return config

    def arrays(self, task_id: int) -> Any:
        config = self.config
        modules = config["build_config"]["lora_config"]["lora_target_modules"]
        return arrays(read_adapter(self.folders[task_id]), config["pretrained_config"], modules)


@pytest.fixture(scope="session")
def adapted(
    tiny_models: dict[str, Path], tiny_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Adapted]:
    root, made = tmp_path_factory.mktemp("adapted"), {}

    def make(name: str) -> Adapted:
        if name in made:
            return made[name]
        model = tiny_models.get(name) or save(root / name, "GPT2", GPT2, tiny_tokenizer)
        folders = {
            task_id: peft_adapters.write(
                root / f"{name}.{task_id}", model, targets, seed=task_id, r=4 * task_id
            )
            for task_id, targets in enumerate(TARGETS[name], start=1)
        }
        checkpoint, engine = root / f"{name}.checkpoint", root / f"{name}.engine"
        convert(model, checkpoint, options=ConvertOptions(dtype="float32"))
        options = EngineOptions(lora=tuple(folders.values()))
        build(checkpoint, engine, options=LIMITS, engine=options)
        made[name] = Adapted(model=model, engine=engine, folders=folders)
        return made[name]

    return make


@pytest.mark.reference
@pytest.mark.parametrize("name", TARGETS)
def test_logits_of_a_mixed_batch_are_those_of_merged_models(
    adapted: Callable[[str], Adapted], name: str
) -> None:
    one = adapted(name)
    cache = Adapters(one.config)
    known = {None: None} | {n: cache.resolve(n, *one.arrays(n)) for n in one.folders}
    graph = LoraGraph(one.engine)
    found = graph.run(PROMPTS, [known[owner] for owner in OWNERS], chunk=13)
    for owner in (1, 2, None):
        model = peft_adapters.merged(one.model, one.folders.get(owner) if owner else None)
        for prompt, its, logits in zip(PROMPTS, OWNERS, found, strict=True):
            if its == owner:
                assert relative_error(logits, peft_adapters.logits(model, prompt)) < 1e-4
    # and a step without any leaves nothing behind of those before
    (plain,) = graph.run(PROMPTS[:1], [None], chunk=50)
    assert relative_error(plain, peft_adapters.logits(model, PROMPTS[0])) < 1e-4
    assert relative_error(found[0], plain) > 0.1


@pytest.mark.reference
def test_quantized_weights_keep_their_codes_beside_adapters(
    adapted: Callable[[str], Adapted], tmp_path: Path
) -> None:
    """In int8 the model is a little off, with an adapter no more than without."""
    one = adapted("llama")
    checkpoint = tmp_path / "checkpoint"
    convert(one.model, checkpoint, options=ConvertOptions(dtype="float32"))
    config = json.loads((checkpoint / "config.json").read_text())
    config["quantization"]["quant_algo"] = "W8A16"
    (checkpoint / "config.json").write_text(json.dumps(config))
    build(checkpoint, tmp_path / "plain", options=LIMITS)
    options = EngineOptions(lora=tuple(one.folders.values()))
    build(checkpoint, tmp_path / "lora", options=LIMITS, engine=options)
    sizes = [(tmp_path / name / "openvino_model.bin").stat().st_size for name in ("plain", "lora")]
    assert sizes[0] == sizes[1] < (one.engine / "openvino_model.bin").stat().st_size / 2
    _, known = resolved(one)
    found = LoraGraph(tmp_path / "lora").run(PROMPTS[:2], [known[2], None], chunk=50)
    for logits, folder, prompt in zip(found, (one.folders[2], None), PROMPTS, strict=False):
        merged = peft_adapters.logits(peft_adapters.merged(one.model, folder), prompt)
        assert 1e-4 < relative_error(logits, merged) < 0.1


def random_adapters(one: Adapted, count: int) -> dict[int, Any]:
    """Arrays of adapters with random weights, ranks and rows; the engine's rows are the first's."""
    rng, made = np.random.default_rng(count), {}
    weights, config = one.arrays(2)
    for task_id in range(count):
        rows = rng.permutation(len(config))[: rng.integers(1, len(config) + 1)]
        own = config[rows].copy()
        own[:, 2] = rng.integers(1, 9)
        values = rng.standard_normal((len(rows), weights.shape[1])) * 0.2
        made[task_id] = values.astype(np.float16), own
    return made


def test_fifty_adapters_over_a_cache_of_four_never_mix(adapted: Callable[[str], Adapted]) -> None:
    """Each step's sequences, some of many, compute what they do alone in a graph of their own."""
    one = adapted("llama")
    sent = random_adapters(one, 50)
    largest = Adapters(one.config).resolve(0, *one.arrays(2)).nbytes
    cache = Adapters(one.config, CacheLimits(host_memory_bytes=4 * largest))
    together, alone = LoraGraph(one.engine), LoraGraph(one.engine)
    rng = np.random.default_rng(1)
    for _ in range(40):
        owners = [int(n) if n >= 0 else None for n in rng.integers(-2, 50, size=3)]
        adapters = [
            None if owner is None else cache.resolve(owner, *sent[owner]) for owner in owners
        ]
        prompts = [PROMPTS[i][:5] for i in rng.integers(0, 5, size=3)]
        found = together.run(prompts, adapters, chunk=3)
        i = int(rng.integers(0, 3))
        (expected,) = alone.run([prompts[i]], [adapters[i]], chunk=5)
        assert relative_error(found[i], expected) < 1e-4
    assert len(cache.task_ids) < 50


def resolved(one: Adapted) -> tuple[Adapters, dict[int, Adapter]]:
    cache = Adapters(one.config)
    return cache, {n: cache.resolve(n, *one.arrays(n)) for n in one.folders}


def test_a_step_like_the_last_costs_nothing(adapted: Callable[[str], Adapted]) -> None:
    one = adapted("llama")
    _, known = resolved(one)
    lora = LoraGraph(one.engine).lora
    step = [chunk_of(known[1], 8, 7), chunk_of(None, 5, 4), chunk_of(known[2], 9, 8)]
    first = lora.of(step)
    again = [chunk_of(known[1], 9, 8), chunk_of(None, 6, 5), chunk_of(known[2], 10, 9)]
    assert lora.of(again) is first
    assert lora.of(again[:2]) is not first


def test_a_token_sees_the_columns_of_its_adapter_only(adapted: Callable[[str], Adapted]) -> None:
    """Adapter 1 has q and v of rank 4; adapter 2 all of rank 8: q, k and v are 24 columns."""
    one = adapted("llama")
    _, known = resolved(one)
    lora = LoraGraph(one.engine).lora
    masks = lora.of([chunk_of(known[1], 2, 0), chunk_of(None, 1, 0), chunk_of(known[2], 1, 0)])
    qkv, proj = masks["lora.attention.qkv.mask"], masks["lora.mlp.proj.mask"]
    assert (qkv.shape, proj.shape) == ((4, 1, 8 + 24), (4, 1, 8))
    assert qkv[:, 0].tolist() == [[1] * 8 + [0] * 24] * 2 + [[0] * 32] + [[0] * 8 + [1] * 24]
    assert proj[:, 0].tolist() == [[0] * 8] * 3 + [[1] * 8]
    none = lora.of([chunk_of(None, 3, 0)])
    assert {mask.shape for mask in none.values()} == {(3, 1, 0)}


def small_cache(one: Adapted) -> Adapters:
    """Room for one adapter of adapter 2's size."""
    largest = Adapters(one.config).resolve(0, *one.arrays(2)).nbytes
    return Adapters(one.config, CacheLimits(host_memory_bytes=largest))


def test_an_adapter_is_let_go_of_when_its_requests_are_over(
    adapted: Callable[[str], Adapted],
) -> None:
    one = adapted("llama")
    cache, lora = small_cache(one), LoraGraph(one.engine).lora
    lora.of([chunk_of(cache.resolve(2, *one.arrays(2)), 2, 0)])
    cache.resolve(3, *one.arrays(2))
    assert cache.task_ids == (3,)


def test_an_engine_without_adapters_has_no_such_inputs(tiny_engine_dir: Path) -> None:
    model = ov.Core().compile_model(tiny_engine_dir / "openvino_model.xml", "CPU")
    assert LoraInputs(model.create_infer_request()).of([SimpleNamespace()]) == {}  # type: ignore[list-item]


class Answer:
    """Gathers what one request is given."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.done = threading.Event()

    def __call__(self, output: Any) -> None:
        self.tokens += output.token_ids
        if output.final:
            self.done.set()


@pytest.mark.reference
def test_the_executor_answers_a_mixed_crowd_as_merged_models_do(
    adapted: Callable[[str], Adapted],
) -> None:
    """Twice, so that the second time prefixes are reused: each adapter has blocks of its own."""
    one = adapted("llama")
    _, known = resolved(one)
    prompt = PROMPTS[2]
    models = {n: peft_adapters.merged(one.model, one.folders.get(n)) for n in (0, 1, 2)}
    expected = {n: peft_adapters.greedy(model, prompt, 12) for n, model in models.items()}
    assert len({tuple(tokens) for tokens in expected.values()}) == 3
    executor = Executor(one.engine, ExecutorConfig.of(one.engine))
    try:
        for _ in range(2):
            answers = [(n, Answer()) for n in (0, 1, 2, 1, 0, 2)]
            for n, answer in answers:
                request = Request(input_ids=prompt, max_tokens=12, adapter=known.get(n))
                executor.submit(request, answer)
            for n, answer in answers:
                assert answer.done.wait(60)
                assert answer.tokens == expected[n]
    finally:
        executor.close()


def test_the_executor_lets_go_of_an_adapter_when_its_answer_is_out(
    adapted: Callable[[str], Adapted],
) -> None:
    one = adapted("llama")
    cache = small_cache(one)
    executor = Executor(one.engine, ExecutorConfig.of(one.engine))
    try:
        for task_id in (1, 2, 3):
            answer = Answer()
            adapter = cache.resolve(task_id, *one.arrays(2))
            request = Request(input_ids=PROMPTS[0], max_tokens=3, adapter=adapter)
            executor.submit(request, answer)
            assert answer.done.wait(60)
            del request, adapter
            until(lambda: freed(cache, one))
    finally:
        executor.close()


def freed(cache: Adapters, one: Adapted) -> bool:
    """Whether another adapter finds room."""
    try:
        cache.resolve(99, *one.arrays(2))
    except RequestError:
        return False
    return True
