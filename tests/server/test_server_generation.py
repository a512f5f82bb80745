from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from small_tokenizers import EOS, byte_level, ids, write_folder
from text_answers import text_request

from server.backend import memory
from server.backend.base import GenerateRequest, Perf, PromptLogProb, Take, Tokens
from server.backend.memory import MemoryBackend, Script
from server.config import ServedModel
from server.errors import NotReadyError
from server.generation import Generation
from server.protocol.request import TextEvent, TextRequest, Usage
from server.telemetry.metrics import Metrics, RequestMeter
from server.text_model import TextModel

RAW = byte_level()
END = RAW.token_to_id(EOS)


def singly(text: str, *more: int) -> list[list[int]]:
    return [[token] for token in (*ids(RAW, text), *more)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TextModel:
    folder = write_folder(tmp_path_factory.mktemp("generation"), RAW)
    served = ServedModel(
        name="m",
        tokenizer_dir=folder,
        max_seq_len=500,
        max_beam_width=4,
        context_logits=True,
        generation_logits=True,
    )
    return TextModel(served, offload_chars=1000)


async def generation(model: TextModel, backend: MemoryBackend, request: TextRequest) -> Generation:
    prepared = await model.requests(request, "r")
    meter = RequestMeter(Metrics(), model="m", endpoint="x")
    return Generation(model, backend, request, prepared, meter)


async def whole(
    model: TextModel, backend: MemoryBackend, request: TextRequest
) -> tuple[list[TextEvent], Usage]:
    with await generation(model, backend, request) as running:
        return await running.whole(), running.usage


async def streamed(
    model: TextModel, backend: MemoryBackend, request: TextRequest
) -> tuple[list[list[TextEvent]], Usage]:
    batches = []
    with await generation(model, backend, request) as running:
        while events := await shown(running):
            batches.append(events)
        return batches, running.usage


async def shown(running: Generation) -> list[TextEvent]:
    """What it shows next; [] after the end."""
    found: list[TextEvent] = []

    def show(events: list[TextEvent]) -> bool:
        found.extend(events)
        return False

    await running.run(show)
    return found


def texts(events: Sequence[TextEvent]) -> dict[int, str]:
    found: dict[int, str] = {}
    for event in events:
        found[event.index] = found.get(event.index, "") + event.text
    return found


async def test_what_has_come_together_leaves_as_one_event(model: TextModel) -> None:
    backend = MemoryBackend(Script(messages=singly("one two three", END), burst=4))
    batches, _ = await streamed(model, backend, text_request("x"))
    assert len(batches) == -(-len(singly("one two three", END)) // 4)
    assert all(len(events) == 1 for events in batches)
    assert texts([event for events in batches for event in events]) == {0: "one two three"}


async def test_n_answers_are_one_request_whose_prompt_counts_once(model: TextModel) -> None:
    sequences = [singly(text, END) for text in ("fox", "lazy dog", "jumps")]
    backend = MemoryBackend(Script(sequences=sequences, perf=Perf(cached_tokens=3)))
    for stream in (False, True):
        request = text_request("The quick brown", n=3, stream=stream)
        batches, usage = await streamed(model, backend, request)
        events = [event for batch in batches for event in batch]
        assert texts(events) == {0: "fox", 1: "lazy dog", 2: "jumps"}
        assert [event.finish_reason for event in events].count("stop") == 3
        made = backend.requests[-1]
        assert made.sequences == 3
        assert usage == Usage(
            prompt_tokens=len(made.input_ids),
            completion_tokens=sum(map(len, sequences)),
            cached_tokens=3,
        )


async def test_cached_tokens_are_known_where_the_text_ends_an_answer_before_the_engine_does(
    model: TextModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = memory._play

    def tell_with_the_first(script: Script, request: GenerateRequest) -> Iterator[Tokens]:
        first, *rest = played(script, request)
        yield first._replace(perf=script.perf)
        yield from rest

    monkeypatch.setattr(memory, "_play", tell_with_the_first)
    backend = MemoryBackend(Script(messages=singly("one STOP two"), perf=Perf(cached_tokens=3)))
    for stop, cancelled in [(("STOP",), 1), ((), 1)]:
        _, usage = await whole(model, backend, text_request("x", stop=stop, max_tokens=12))
        assert usage.cached_tokens == 3
        assert len(backend.cancelled) == cancelled


async def test_a_sequence_that_stopped_is_over_though_the_engine_goes_on(model: TextModel) -> None:
    sequences = [singly("one STOP more and more"), singly("never any end", END)]
    backend = MemoryBackend(Script(sequences=sequences))
    choices, usage = await whole(model, backend, text_request("x", n=2, stop=("STOP",)))
    assert [choice.text for choice in choices] == ["one ", "never any end"]
    assert [choice.stopped_by for choice in choices] == ["STOP", None]
    assert usage.completion_tokens == len(ids(RAW, "one STOP")) + len(sequences[1])


async def test_when_every_answer_has_stopped_the_engine_is_told(model: TextModel) -> None:
    hangs = Script(sequences=[singly("a STOP"), singly("b STOP")], hang=True)
    backend = MemoryBackend(hangs)
    choices, _ = await whole(model, backend, text_request("x", n=2, stop=(" STOP",)))
    assert [choice.text for choice in choices] == ["a", "b"]
    assert (backend.running, backend.cancelled) == (0, ["r"])


async def test_of_best_of_candidates_the_likeliest_are_answered_the_best_first(
    model: TextModel,
) -> None:
    likely = {"fox": -2.0, "dog": -0.5, "jumps": -1.0}

    class Judged(MemoryBackend):
        def generate(self, request: GenerateRequest) -> Any:
            self.requests.append(request)
            return Judgement(likely)

    backend = Judged(Script())
    choices, usage = await whole(model, backend, text_request("x", n=2, best_of=3))
    assert [(choice.index, choice.text) for choice in choices] == [(0, "dog"), (1, "jumps")]
    assert backend.requests[0].log_probs
    assert not choices[0].log_probs, "nobody asked for them"
    written = sum(len(ids(RAW, text)) for text in likely)
    assert usage.completion_tokens == written, "all were written"


class Judgement:
    """A stream of finished sequences, each token of one as likely as the others."""

    def __init__(self, likely: dict[str, float]) -> None:
        told = [(ids(RAW, text), value) for text, value in likely.items()]
        self._batch = [
            Tokens(ids=own, sequence=n, log_probs=[value] * len(own), final=n == len(told) - 1)
            for n, (own, value) in enumerate(told)
        ]

    async def run(self, take: Take) -> bool:
        return take(self._batch)

    def cancel(self) -> None:
        pass


async def test_beams_come_as_the_engine_sorted_them(model: TextModel) -> None:
    backend = MemoryBackend(Script(sequences=[singly("fox", END), singly("dog", END)]))
    request = text_request("x", n=1, best_of=2, beams=True, length_penalty=0.5)
    choices, _ = await whole(model, backend, request)
    assert [choice.text for choice in choices] == ["fox"]
    beams = backend.requests[0].beams
    assert beams
    assert (beams.width, beams.length_penalty, backend.requests[0].sequences) == (2, 0.5, 1)


async def test_several_prompts_are_answered_side_by_side_in_their_order(model: TextModel) -> None:
    def answer(request: GenerateRequest) -> Script:
        return Script(messages=[[token] for token in request.input_ids[1:]])

    backend = MemoryBackend(answer)
    request = text_request("The fox", "lazy dog", "jumps", n=2, best_of=2)
    choices, usage = await whole(model, backend, request)
    wanted = ["The fox"] * 2 + ["lazy dog"] * 2 + ["jumps"] * 2
    assert [choice.text for choice in choices] == wanted
    assert [choice.index for choice in choices] == list(range(6))
    assert usage.prompt_tokens == sum(len(made.input_ids) for made in backend.requests)
    assert len({made.seed for made in backend.requests}) == 3, "each prompt's own"
    assert len({made.request_id for made in backend.requests}) == 3


async def test_a_prompt_of_many_that_stopped_is_cancelled_alone(model: TextModel) -> None:
    def answer(request: GenerateRequest) -> Script:
        first = request.request_id.endswith("-0")
        return (
            Script(messages=singly("a STOP"), hang=True)
            if first
            else Script(messages=singly("b", END))
        )

    backend = MemoryBackend(answer)
    choices, _ = await whole(model, backend, text_request("x", "y", stop=(" STOP",)))
    assert [choice.text for choice in choices] == ["a", "b"]
    assert (backend.cancelled, backend.running) == (["r-0"], 0)


async def test_every_choice_echoes_the_prompt_with_its_log_probs(model: TextModel) -> None:
    prompt = [PromptLogProb(log_prob=-1.0)] * (len(RAW.encode("The fox").ids) - 1)
    backend = MemoryBackend(Script(messages=singly(" runs", END), prompt=prompt))
    request = text_request("The fox", n=2, echo=True, log_probs=0)
    choices, _ = await whole(model, backend, request)
    for choice in choices:
        assert choice.text == "The fox runs"
        values = [token.log_prob for token in choice.log_probs]
        assert values == [None] + [-1.0] * len(prompt) + [-0.5] * len(ids(RAW, " runs"))


async def test_an_error_comes_after_what_came_before_it(model: TextModel) -> None:
    backend = MemoryBackend(Script(messages=singly("one"), failure=NotReadyError("away")))
    with await generation(model, backend, text_request("x")) as running:
        for token in ids(RAW, "one"):
            assert texts(await shown(running)) == {0: RAW.decode([token])}
        with pytest.raises(NotReadyError, match="away"):
            await shown(running)
    assert backend.running == 0


async def test_leaving_cancels_what_runs(model: TextModel) -> None:
    backend = MemoryBackend(Script(messages=singly("one"), hang=True))
    with await generation(model, backend, text_request("x", "y")) as running:
        await shown(running)
        assert backend.running == 2
    assert backend.running == 0
    assert sorted(backend.cancelled) == ["r-0", "r-1"]
