"""Promise: what a client of the endpoint reads is what the source model says."""

from __future__ import annotations

import time
import urllib.request
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from prompts import PROMPTS
from stack import NAME, Stack
from tokenizers import Tokenizer

pytestmark = pytest.mark.triton

Logits = Callable[[list[int]], Any]
QUESTION: Any = [{"role": "user", "content": "What is gravity?"}]
RAW = {"ignore_eos": True, "skip_special_tokens": False}
NEAR_TIE = 1e-3


@pytest.fixture(scope="module")
def tokenizer(stack: Stack) -> Tokenizer:
    """The model's tokenizer."""
    return Tokenizer.from_file(str(stack.engine / "tokenizer.json"))


@pytest.fixture(scope="module")
def reference(smollm2_gguf: Path) -> Logits:
    """Token ids → logits of transformers in float32, by its own reading of the GGUF file."""
    import torch
    import transformers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = transformers.AutoModelForCausalLM.from_pretrained(
            smollm2_gguf.parent, gguf_file=smollm2_gguf.name, torch_dtype=torch.float32
        )

    def logits(ids: list[int]) -> Any:
        with torch.no_grad():
            return model(torch.tensor([ids])).logits[0]

    return logits


def complete(stack: Stack, prompt: str, max_tokens: int) -> str:
    """The greedy answer, of just so many tokens."""
    answer = stack.client.completions.create(
        model=NAME, prompt=prompt, max_tokens=max_tokens, temperature=0, extra_body=RAW
    )
    assert answer.usage is not None
    assert answer.usage.completion_tokens == max_tokens
    return answer.choices[0].text


def complete_at_once(stack: Stack, prompts: list[str], max_tokens: int) -> list[str]:
    """The greedy answers, asked for by as many clients."""
    with ThreadPoolExecutor(len(prompts)) as clients:
        return list(clients.map(lambda prompt: complete(stack, prompt, max_tokens), prompts))


def greedy_text(tokenizer: Tokenizer, reference: Logits, prompt: str, tokens: int) -> str:
    """The reference's own answer, token by token."""
    ids = tokenizer.encode(prompt).ids
    for _ in range(tokens):
        ids.append(int(reference(ids)[-1].argmax()))
    answer: str = tokenizer.decode(ids, skip_special_tokens=False)
    return answer.removeprefix(prompt)


def test_greedy_tokens_are_those_of_transformers(
    stack: Stack, tokenizer: Tokenizer, reference: Logits
) -> None:
    equal, prompts = 0, PROMPTS[:20]
    for prompt, answer in zip(prompts, complete_at_once(stack, prompts, 64), strict=True):
        ids = tokenizer.encode(prompt).ids
        read_back = tokenizer.encode(prompt + answer).ids
        # Where every token is the reference's choice after those before it, all are its answer.
        chosen = reference(read_back).argmax(-1).tolist()[len(ids) - 1 : -1]
        equal += chosen == read_back[len(ids) :] or answer == greedy_text(
            tokenizer, reference, prompt, 64
        )
    assert equal >= 19


def test_32_clients_at_once_get_what_each_gets_alone(
    stack: Stack, tokenizer: Tokenizer, reference: Logits
) -> None:
    together = complete_at_once(stack, PROMPTS, 32)
    for prompt, other in list(zip(PROMPTS, together, strict=True))[::4]:
        one = complete(stack, prompt, 32)
        if one != other:
            assert gap_at_divergence(tokenizer, reference, prompt, one, other) < NEAR_TIE


def gap_at_divergence(
    tokenizer: Tokenizer, reference: Logits, prompt: str, one: str, other: str
) -> float:
    """How far apart the two best logits lie where two answers part."""
    first, second = (tokenizer.encode(prompt + answer).ids for answer in (one, other))
    parted = next(i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    best, next_best = reference(first[:parted])[-1].topk(2).values.tolist()
    return float(best - next_best)


def test_a_stream_gives_the_same_text_as_the_whole(stack: Stack) -> None:
    fields: Any = {"model": NAME, "messages": QUESTION, "max_tokens": 60, "temperature": 0}
    whole = stack.client.chat.completions.create(**fields)
    chunks = list(
        stack.client.chat.completions.create(
            **fields, stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert "gravity" in text.lower()
    usages = [answer.usage for answer in (whole, chunks[-1]) if answer.usage]
    counts = {(u.prompt_tokens, u.completion_tokens, u.total_tokens) for u in usages}
    assert (len(usages), len(counts)) == (2, 1)
    # the same prompt again: its whole blocks are there
    details = usages[1].prompt_tokens_details
    assert details is not None
    assert 0 < (details.cached_tokens or 0) < usages[1].prompt_tokens
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason


def test_what_was_read_before_is_told_of_an_answer_that_a_stop_string_ends(stack: Stack) -> None:
    fields: dict[str, Any] = {
        "model": NAME,
        "messages": [{"role": "user", "content": "Why do apples fall? Say it in a sentence. " * 4}],
        "max_tokens": 40,
        "temperature": 0,
    }
    whole = stack.client.chat.completions.create(**fields).choices[0].message.content
    word = f" {whole.split()[3]}"
    answer = stack.client.chat.completions.create(**fields, stop=word)
    assert answer.choices[0].message.content == whole[: whole.index(word)]
    assert answer.usage.completion_tokens < 40
    assert answer.usage.prompt_tokens_details.cached_tokens > 0


def test_an_answer_ends_by_itself_at_the_models_end_of_turn(stack: Stack) -> None:
    answer = stack.client.chat.completions.create(
        model=NAME,
        messages=[{"role": "user", "content": "What is the capital of France?"}],
        max_tokens=60,
        temperature=0,
    )
    assert answer.choices[0].message.content == "The capital of France is Paris."
    assert answer.choices[0].finish_reason == "stop"


def test_a_stop_string_cuts_the_text_before_it(stack: Stack) -> None:
    fields: Any = {"model": NAME, "messages": QUESTION, "max_tokens": 60, "temperature": 0}
    whole = stack.client.chat.completions.create(**fields).choices[0].message.content
    assert whole
    stop = whole[20:27]
    cut = stack.client.chat.completions.create(**fields, stop=[stop]).choices[0]
    assert cut.message.content == whole[: whole.index(stop)]
    assert cut.finish_reason == "stop"


def test_a_seed_repeats_an_answer_and_none_does_not(stack: Stack) -> None:
    def answer(seed: int | None) -> str | None:
        got = stack.client.chat.completions.create(
            model=NAME, messages=QUESTION, max_tokens=24, **({"seed": seed} if seed else {})
        )
        return got.choices[0].message.content

    assert answer(7) == answer(7)
    assert answer(7) != answer(8)
    assert answer(None) != answer(None)


def test_log_probs_are_those_of_transformers(
    stack: Stack, tokenizer: Tokenizer, reference: Logits
) -> None:
    prompt = PROMPTS[0]
    answer = stack.client.completions.create(
        model=NAME, prompt=prompt, max_tokens=16, temperature=0, logprobs=0, extra_body=RAW
    ).choices[0]
    assert answer.logprobs is not None
    ids = tokenizer.encode(prompt + answer.text).ids
    scores = reference(ids).log_softmax(-1)
    start = len(ids) - 16
    expected = [float(scores[i - 1, ids[i]]) for i in range(start, len(ids))]
    assert answer.logprobs.token_logprobs == pytest.approx(expected, abs=1e-2)


def test_a_prompt_beyond_the_engine_is_refused_with_both_figures(stack: Stack) -> None:
    with pytest.raises(openai.BadRequestError, match="2048") as refused:
        stack.client.completions.create(model=NAME, prompt="word " * 3000, max_tokens=1)
    assert refused.value.code == "context_length_exceeded"


def test_the_room_left_bounds_an_answer(stack: Stack) -> None:
    prompt = "word " * 2020
    answer = stack.client.completions.create(
        model=NAME, prompt=prompt, max_tokens=500, temperature=0, extra_body=RAW
    )
    assert answer.usage is not None
    assert answer.usage.total_tokens == 2048
    assert answer.choices[0].finish_reason == "length"


def test_an_unknown_model_is_not_found(stack: Stack) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        stack.client.chat.completions.create(model="gpt-4", messages=QUESTION)
    assert refused.value.code == "model_not_found"


def test_a_client_that_goes_away_frees_its_slot(stack: Stack) -> None:
    streams = [
        stack.client.chat.completions.create(
            model=NAME, messages=QUESTION, max_tokens=1900, stream=True, extra_body=RAW
        )
        for _ in range(4)
    ]
    for stream in streams:
        next(iter(stream))
        stream.close()
    [stub] = [
        pid
        for pid in stack.processes("triton_python_backend_stub")
        if b"tensorrtllm" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    deadline = time.monotonic() + 20
    while cpu_ticks(stub, 0.5) > 5:
        assert time.monotonic() < deadline, "the engine still computes for clients that are gone"


def cpu_ticks(pid: int, seconds: float) -> int:
    """How many clock ticks of CPU a process takes in a while."""

    def ticks() -> int:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return int(fields[11]) + int(fields[12])

    before = ticks()
    time.sleep(seconds)
    return ticks() - before


def test_metrics_count_what_was_served(stack: Stack) -> None:
    stack.client.chat.completions.create(model=NAME, messages=QUESTION, max_tokens=2)
    with urllib.request.urlopen(f"{stack.url}/metrics") as response:
        text = response.read().decode()
    assert f'model="{NAME}"' in text
