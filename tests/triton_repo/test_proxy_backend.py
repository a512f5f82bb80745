"""Promise: what the proxy asks of a real Triton is what the engine does, down to each number."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from backend_repository import engine
from token_batches import next_batch
from tokenizers import Tokenizer

from server.backend.base import BeamSearch, GenerateRequest, Guide, Tokens, TokenStream
from server.backend.triton import TritonBackend
from server.config import ServedModel, ServerConfig
from server.errors import InvalidRequestError, RequestError
from triton_repo.control import access
from triton_repo.control.client import Control
from triton_repo.launch.triton import LaunchConfig, Triton
from triton_repo.layout import write_repository
from triton_repo.settings.options import RepositoryOptions

pytestmark = pytest.mark.triton

MODEL = "tensorrt_llm"
PROMPT = [5, 6, 7, 9, 11]


@pytest.fixture(scope="module")
def config(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> LaunchConfig:
    folder = tmp_path_factory.mktemp("proxy")
    built = engine(tiny_models["llama"], folder)
    options = RepositoryOptions(normalize_log_probs=False, guided_decoding_backend="xgrammar")
    write_repository(built, folder / "repo", options=options)
    return LaunchConfig(
        repository=folder / "repo", log_path=folder / "log", models=(MODEL,), model_control=True
    )


@pytest.fixture(scope="module")
def triton(config: LaunchConfig) -> Iterator[Triton]:
    with Triton(config) as running:
        yield running


@asynccontextmanager
async def backend(triton: Triton) -> AsyncIterator[TritonBackend]:
    model = ServedModel(name="m", tokenizer_dir=Path(), max_seq_len=512, vocab_size=384)
    made = TritonBackend(ServerConfig(triton_addresses=(triton.grpc_address,), models=(model,)))
    try:
        yield made
    finally:
        await made.close()


def request(**values: Any) -> GenerateRequest:
    defaults = {"model": MODEL, "request_id": "r", "input_ids": PROMPT, "max_tokens": 12}
    greedy = {"end_id": -1, "seed": 1, "temperature": None}
    return GenerateRequest(**{**defaults, **greedy, **values})


async def drain(stream: TokenStream) -> list[Tokens]:
    found: list[Tokens] = []
    while batch := await asyncio.wait_for(next_batch(stream), 60):
        found += batch
    return found


async def answer(made: TritonBackend, **values: Any) -> list[Tokens]:
    return await drain(made.generate(request(**values)))


def ids(found: list[Tokens], sequence: int = 0) -> list[int]:
    return [token for tokens in found if tokens.sequence == sequence for token in tokens.ids]


async def test_log_probabilities_of_logits_are_the_engines_own(triton: Triton) -> None:
    async with backend(triton) as made:
        plain = await answer(made, log_probs=True)
        told = await answer(made, log_probs=True, top_log_probs=3, prompt_log_probs=2)
        assert ids(told) == ids(plain)
        assert len(ids(told)) == 12
        own = [value for tokens in plain for value in tokens.log_probs]
        assert [value for tokens in told for value in tokens.log_probs] == pytest.approx(
            own, abs=1e-3
        )
        tops = [top for tokens in told for top in tokens.top]
        assert [top[0][0] for top in tops] == ids(told), "greedy takes the likeliest"
        assert all(list(top) == sorted(top, key=lambda one: -one[1]) for top in tops)
        prompt = [each for tokens in told for each in tokens.prompt]
        assert len(prompt) == len(PROMPT) - 1
        # the answer's logits are the prompt's that goes on with it
        longer = await answer(made, input_ids=PROMPT + ids(told), max_tokens=1, prompt_log_probs=0)
        again = [each.log_prob for tokens in longer for each in tokens.prompt]
        assert again[len(PROMPT) - 1 :] == pytest.approx(own, abs=1e-3)
        assert again[: len(PROMPT) - 1] == pytest.approx(
            [each.log_prob for each in prompt], abs=1e-3
        )


async def test_several_sequences_and_beams_are_told_apart(triton: Triton) -> None:
    async with backend(triton) as made:
        sampled = await answer(made, sequences=3, temperature=5.0, log_probs=True)
        assert all(len(ids(sampled, number)) == 12 for number in range(3))
        assert len({tuple(ids(sampled, number)) for number in range(3)}) > 1
        assert [tokens.final for tokens in sampled].count(True) == 1
        assert sampled[-1].final
        beams = await answer(made, beams=BeamSearch(width=3), log_probs=True)
        sums = [sum(tokens.log_probs) for tokens in beams]
        assert [tokens.sequence for tokens in beams] == [0, 1, 2]
        assert sums == sorted(sums, reverse=True)
        greedy = await answer(made, log_probs=True)
        assert sums[0] >= sum(v for t in greedy for v in t.log_probs) - 1e-3


async def test_bias_bad_words_stop_ids_and_guides_have_their_effect(triton: Triton) -> None:
    async with backend(triton) as made:
        first = ids(await answer(made))[0]
        assert ids(await answer(made, logit_bias={7: 100.0})) == [7] * 12
        assert first not in ids(await answer(made, bad_words=((first,),)))
        assert ids(await answer(made, logit_bias={7: 100.0}, stop_ids=(3, 7))) == [7]
        guide = Guide(kind="regex", text="[xyz]{3}!")
        found = ids(await answer(made, guide=guide, end_id=2))
        tokenizer = next(triton.config.repository.rglob("tokenizer.json"))
        text = Tokenizer.from_file(str(tokenizer)).decode(found, skip_special_tokens=True)
        assert re.fullmatch("[xyz]{3}!", text)


async def test_perf_tells_of_times_and_of_reused_blocks(triton: Triton) -> None:
    prompt = [20 + n % 300 for n in range(200)]
    async with backend(triton) as made:
        await answer(made, input_ids=prompt)
        found = await answer(made, input_ids=prompt)
        first, perf = found[0].perf, found[-1].perf
        assert first is not None
        assert perf is not None
        assert first.cached_tokens == perf.cached_tokens
        assert 0 < perf.arrival_ns <= perf.first_scheduled_ns <= perf.first_token_ns
        assert perf.first_token_ns <= perf.last_token_ns
        assert 64 <= perf.cached_tokens < 200


async def test_what_the_engine_refuses_is_an_error_of_the_request(triton: Triton) -> None:
    async with backend(triton) as made:
        with pytest.raises(InvalidRequestError, match="beam_width"):
            await answer(made, beams=BeamSearch(width=9))
        with pytest.raises(RequestError):
            await answer(made, input_ids=[9999])
        assert len(ids(await answer(made))) == 12


async def test_a_triton_that_was_left_in_all_ways_can_still_unload_its_model(
    config: LaunchConfig, tmp_path: Path
) -> None:
    """Streams cancelled with their last token, in the middle and before the beginning.

    By a race of its own Triton 2.51 sometimes keeps a cancelled request, and with it the model; of
    streams that were also cancelled where they end, it kept some every time.
    """
    for attempt in range(3):
        with Triton(replace(config, log_path=tmp_path / f"log{attempt}")) as triton:
            async with backend(triton) as made:
                await made.ready(MODEL)
                for _ in range(4):
                    await asyncio.gather(*(leave(made, number) for number in range(60)))
                assert len(ids(await answer(made))) == 12
            control = Control(access.read(triton.config.log_path))
            control.unload(MODEL)
            for _ in range(200):
                if all(version.gone for version in control.index() if version.name == MODEL):
                    return
                await asyncio.sleep(0.1)
    pytest.fail("the model stays UNLOADING, three times")


async def leave(made: TritonBackend, number: int) -> None:
    """Who leaves in the middle leaves an answer too long to end by itself meanwhile."""
    reads = number % 5
    longest = 500 if number % 2 or not reads else reads
    stream = made.generate(request(max_tokens=longest, request_id=str(number)))
    for _ in range(reads):
        if not await asyncio.wait_for(next_batch(stream), 60):
            break
    stream.cancel()
