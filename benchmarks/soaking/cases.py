"""What the soak asks: a pool of requests, each with the answer that a quiet server must give."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from token_client import MODEL, TEXT_MODELS, TokenClient, request, text_request, words

LONGEST = 96
"""The most new tokens that a request asks for."""
PROMPTS, OF_A_KIND = 64, 12
ADAPTERS = (1, 2)
"""The task ids of the engine's adapters."""
_ADAPTED = 0.25
"""The share of texts that ask for one."""
_LONGEST_WORD = 3
_LETTERS = "abc def, xyz. äöü 日本語 🙂\n"


@dataclass(kw_only=True)
class Answer:
    """What came: tokens by sequence, log probabilities, the error that ended it ("" for none).

    A text's characters stand for tokens.
    """

    tokens: dict[int, list[int]] = field(default_factory=dict)
    log_probs: list[float] = field(default_factory=list)
    error: str = ""
    over: bool = False
    first_s: float = 0.0

    @property
    def count(self) -> int:
        """New tokens over all sequences."""
        return sum(map(len, self.tokens.values()))


@dataclass(frozen=True, kw_only=True)
class Case:
    """A request, and the answer to it. `greedy` answers can be told from a near tie.

    The `prompt` of a model that takes text is its characters.
    """

    kind: str
    prompt: list[int]
    max_tokens: int
    expected: Answer
    inputs: Mapping[str, Any] = field(default_factory=dict)
    outputs: tuple[str, ...] = ("output_ids", "sequence_length")
    greedy: bool = True
    model: str = MODEL

    def wire(self, request_id: str = "") -> bytes:
        """The request as it is sent."""
        if self.model != MODEL:
            text = "".join(map(chr, self.prompt))
            return text_request(self.model, text, self.max_tokens, **self.inputs)
        return request(
            self.prompt,
            self.max_tokens,
            request_id=request_id,
            outputs=self.outputs,
            **self.inputs,
        )


async def ask(client: TokenClient, wire: bytes, *, cut: int | None = None) -> Answer:
    """The answer to a request; with `cut`, cancelled once so many tokens are there."""
    found = Answer()
    responses = client.ask(wire)
    try:
        async for response in responses:
            found.error = response.error
            ids = response.token_ids or [*map(ord, response.text)]
            if ids:
                found.tokens.setdefault(response.number("sequence_index"), []).extend(ids)
                found.log_probs.extend(response.floats("output_log_probs"))
            found.over = response.final or bool(response.error)
            if cut is not None and found.count >= cut and not found.over:
                break
    finally:
        await responses.aclose()
    return found


def prompts(vocab: int, longest: int, rng: random.Random) -> list[list[int]]:
    """Prompts of all sizes around the blocks' of 32; every third goes on from a common start."""
    common = [rng.randrange(3, vocab) for _ in range(70)]
    sizes = [1, 31, 32, 33, 63, 64, 65, longest]
    sizes += [rng.randint(2, min(160, longest)) for _ in range(PROMPTS - len(sizes))]
    made = []
    for i, size in enumerate(sizes):
        start = common[: size - 1] if i % 3 == 0 else []
        made.append(start + [rng.randrange(3, vocab) for _ in range(size - len(start))])
    return made


async def pool(client: TokenClient, vocab: int, longest: int, seed: int) -> Pool:
    """Every case, by asking for its answer while nobody else asks.

    Cuts of a greedy answer (limits, stop words, end ids) aren't asked for: they are made here.
    A kind that the engine refuses is left out and named.
    """
    rng = random.Random(seed)
    cases: list[Case] = []
    plain = [await _plain(client, prompt) for prompt in prompts(vocab, longest, rng)]
    for case in plain:
        cases += _cuts(case, rng)
    absent: dict[str, str] = {}
    for kind, make in _KINDS.items():
        for base in rng.sample(plain, OF_A_KIND):
            inputs, outputs, greedy = make(base, rng, vocab)
            case = Case(
                kind=kind,
                prompt=base.prompt,
                max_tokens=rng.randint(1, LONGEST),
                expected=Answer(),
                inputs=inputs,
                outputs=("output_ids", "sequence_length", *outputs),
                greedy=greedy,
            )
            case = Case(**{**vars(case), "expected": await ask(client, case.wire())})
            if case.expected.error:
                absent[kind] = case.expected.error
                break
            cases.append(case)
    cases += await texts(client, longest, rng, adapted="adapter" not in absent)
    return Pool(cases=cases, absent=absent, refused=_refused(vocab))


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Cases; kinds that the engine doesn't know, with its words; requests that must be refused."""

    cases: list[Case]
    absent: dict[str, str]
    refused: list[bytes]


async def texts(
    client: TokenClient, longest: int, rng: random.Random, *, adapted: bool
) -> list[Case]:
    """Cases of the models that take text: whole, streamed, cut at stop strings, with adapters.

    What a stop string cuts off isn't asked for: it is cut here.
    """
    found: list[Case] = []
    for number in range(4 * OF_A_KIND):
        model, streaming = TEXT_MODELS[number % 2], number % 4 < 2
        kind = f"{model}, {'stream' if streaming else 'whole'}"
        inputs: dict[str, Any] = {"stream": streaming, "top_k": 1}
        if adapted and rng.random() < _ADAPTED:
            inputs["lora_task_id"] = rng.choice(ADAPTERS)
        plain = Case(
            kind=kind,
            prompt=[ord(rng.choice(_LETTERS)) for _ in range(rng.randint(1, longest // 3))],
            max_tokens=rng.randint(LONGEST // 2, LONGEST),
            expected=Answer(),
            inputs=inputs,
            greedy=False,
            model=model,
        )
        plain = replace(plain, expected=await ask(client, plain.wire()))
        found.append(plain)
        text = plain.expected.tokens.get(0, [])
        if len(text) > _LONGEST_WORD:
            stop = _word(text, rng)
            rest = text[: _first(text, stop)]
            found.append(
                replace(
                    plain,
                    kind=f"{kind}, stop string",
                    expected=Answer(tokens={0: rest} if rest else {}, over=True),
                    inputs={**inputs, "stop_words": ["never this", "".join(map(chr, stop))]},
                )
            )
    return found


async def _plain(client: TokenClient, prompt: list[int]) -> Case:
    case = Case(
        kind="log probs",
        prompt=prompt,
        max_tokens=LONGEST,
        expected=Answer(),
        inputs={"return_log_probs": True},
        outputs=("output_ids", "sequence_length", "output_log_probs"),
    )
    return Case(**{**vars(case), "expected": await ask(client, case.wire())})


def _cuts(plain: Case, rng: random.Random) -> list[Case]:
    """A greedy answer: whole, and cut by a limit, an end id and stop words."""
    answer = plain.expected.tokens[0]

    def cut(kind: str, size: int, max_tokens: int = LONGEST, **inputs: Any) -> Case:
        return Case(
            kind=kind,
            prompt=plain.prompt,
            max_tokens=max_tokens,
            expected=Answer(tokens={0: answer[:size]}, over=True),
            inputs=inputs,
        )

    limit = rng.randint(1, LONGEST)
    end = answer[rng.randrange(len(answer))]
    word = _word(answer, rng)
    return [
        plain,
        cut("greedy", limit, limit),
        cut("whole answer", limit, limit, streaming=False),
        cut("end id", answer.index(end) + 1, end_id=end, min_tokens=0),
        cut(
            "stop words",
            _first(answer, word) + len(word),
            stop_words_list=words([answer[0], answer[0], answer[0], 1], word),
        ),
    ]


def _word(answer: Sequence[int], rng: random.Random) -> list[int]:
    size = rng.randint(1, _LONGEST_WORD)
    at = rng.randrange(len(answer) - size)
    return list(answer[at : at + size])


def _first(answer: Sequence[int], word: Sequence[int]) -> int:
    """Where the word comes first."""
    return next(i for i in range(len(answer)) if list(answer[i : i + len(word)]) == list(word))


Made = tuple[dict[str, Any], tuple[str, ...], bool]
"""Inputs, further outputs, whether the answer is greedy."""


def _sampled(base: Case, rng: random.Random, vocab: int) -> Made:
    inputs = {
        "runtime_top_k": rng.choice([0, 5, 50]),
        "runtime_top_p": rng.choice([0.5, 0.9, 1.0]),
        "temperature": rng.choice([0.7, 1.0, 1.3]),
        "seed": rng.randrange(1 << 40),
    }
    return inputs, (), False


def _penalised(base: Case, rng: random.Random, vocab: int) -> Made:
    inputs = {
        "repetition_penalty": 1.2,
        "presence_penalty": 0.3,
        "frequency_penalty": 0.2,
        "min_tokens": 5,
        "end_id": base.expected.tokens[0][2],
    }
    return inputs, (), True


def _several(base: Case, rng: random.Random, vocab: int) -> Made:
    inputs = {"num_return_sequences": 3, "runtime_top_p": 0.9, "seed": rng.randrange(1 << 40)}
    return inputs, ("sequence_index",), False


def _bad_words(base: Case, rng: random.Random, vocab: int) -> Made:
    answer = base.expected.tokens[0]
    return {"bad_words_list": words([answer[1]], answer[4:6])}, (), True


def _bias(base: Case, rng: random.Random, vocab: int) -> Made:
    bias = [0.0] * vocab
    for token in rng.sample(range(vocab), 20):
        bias[token] = rng.uniform(-5, 5)
    return {"embedding_bias": bias}, (), True


def _adapted(base: Case, rng: random.Random, vocab: int) -> Made:
    return {"lora_task_id": rng.choice(ADAPTERS)}, (), True


def _beams(base: Case, rng: random.Random, vocab: int) -> Made:
    return {"beam_width": 2, "streaming": False}, (), False


def _guided(base: Case, rng: random.Random, vocab: int) -> Made:
    pattern = "[a-f]{5,40}"
    inputs = {"guided_decoding_guide_type": "regex", "guided_decoding_guide": pattern}
    return inputs, (), True


def _drafted(base: Case, rng: random.Random, vocab: int) -> Made:
    """Guesses of which the first are right."""
    right = base.expected.tokens[0][: rng.randint(0, 6)]
    return {"draft_input_ids": [*right, rng.randrange(vocab)]}, (), True


def _logits(base: Case, rng: random.Random, vocab: int) -> Made:
    return {"return_generation_logits": True}, ("generation_logits",), True


_KINDS = {
    "sampled": _sampled,
    "penalties": _penalised,
    "several sequences": _several,
    "bad words": _bad_words,
    "embedding bias": _bias,
    "adapter": _adapted,
    "beams": _beams,
    "guided": _guided,
    "draft tokens": _drafted,
    "generation logits": _logits,
}
"""Kinds whose answer is asked for while all is quiet."""


def _refused(vocab: int) -> list[bytes]:
    """Requests that can't run, and must be told so."""
    return [
        request([5] * 100_000, 4),
        request([vocab], 4),
        request([5, 6], 0),
        request([5, 6], 4, end_id=vocab),
        request([5, 6], 4, temperature=-1.0),
        request([5, 6], 4, lora_task_id=max(ADAPTERS) + 1),
        *(text_request(model, "ab", 4, temperature=-1.0) for model in TEXT_MODELS),
    ]
