"""Every plain client of a repository, each as a function: prompts in, their answers' texts out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from typing import Any

import numpy as np
from running import stream, text
from tokenizers import Tokenizer

from triton_repo.launch.triton import Triton

Ask = Callable[[Sequence[str]], list[str]]

GREEDY = {"top_k": np.array([[1]], np.int32)}


def clients(
    triton: Triton, tokenizer: Tokenizer, max_tokens: int, end_id: int
) -> Iterator[tuple[str, Ask]]:
    """Each client by name. The last two send and get token ids, and decode them all at once."""
    for model in ("ensemble", "tensorrt_llm_bls"):
        for streaming in (True, False):
            kind = "stream" if streaming else "whole"
            yield f"{model}, gRPC, {kind}", _grpc(triton, model, streaming, max_tokens)
            yield f"{model}, HTTP, {kind}", _http(triton, model, streaming, max_tokens)
    for streaming in (True, False):
        yield (
            f"tensorrt_llm, gRPC, {'stream' if streaming else 'whole'}",
            _token_ids(triton, tokenizer, streaming, max_tokens, end_id),
        )


def _grpc(triton: Triton, model: str, streaming: bool, max_tokens: int) -> Ask:
    def ask(prompts: Sequence[str]) -> list[str]:
        requests = [
            {
                "text_input": text([prompt]),
                "max_tokens": np.array([[max_tokens]], np.int32),
                "stream": np.array([[streaming]]),
                **GREEDY,
            }
            for prompt in prompts
        ]
        answers = [""] * len(prompts)
        ended = []
        for result in stream(triton, model, *requests):
            index = int(result.get_response().id)
            answers[index] += result.as_numpy("text_output")[0, 0].decode()
            if result.as_numpy("finish_reason")[0, 0]:
                ended.append(index)
        assert sorted(ended) == list(range(len(prompts)))
        return answers

    return ask


def _http(triton: Triton, model: str, streaming: bool, max_tokens: int) -> Ask:
    def one(prompt: str) -> str:
        body = {"text_input": prompt, "max_tokens": max_tokens, "stream": streaming, "top_k": 1}
        return "".join(answer["text_output"] for answer in generate(triton, model, body))

    def ask(prompts: Sequence[str]) -> list[str]:
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(one, prompts))

    return ask


def generate(triton: Triton, model: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """What `/generate`, or `/generate_stream` for a body with `stream` true, answers."""
    way = "generate_stream" if body.get("stream") else "generate"
    connection = HTTPConnection(triton.http_address, timeout=60)
    try:
        content = json.dumps(body, ensure_ascii=False).encode()
        connection.request("POST", f"/v2/models/{model}/{way}", body=content)
        response = connection.getresponse()
        answer = response.read().decode()
        assert response.status == 200, answer
    finally:
        connection.close()
    if way == "generate":
        return [json.loads(answer)]
    return [json.loads(line[6:]) for line in answer.splitlines() if line.startswith("data: ")]


def _token_ids(
    triton: Triton, tokenizer: Tokenizer, streaming: bool, max_tokens: int, end_id: int
) -> Ask:
    def ask(prompts: Sequence[str]) -> list[str]:
        encoded = [tokenizer.encode(prompt).ids for prompt in prompts]
        requests = [
            {
                "input_ids": np.array([ids], np.int32),
                "input_lengths": np.array([[len(ids)]], np.int32),
                "request_output_len": np.array([[max_tokens]], np.int32),
                "end_id": np.array([[end_id]], np.int32),
                "streaming": np.array([[streaming]]),
                "runtime_top_k": np.array([[1]], np.int32),
            }
            for ids in encoded
        ]
        tokens: list[list[int]] = [[] for _ in prompts]
        for result in stream(triton, "tensorrt_llm", *requests):
            length = result.as_numpy("sequence_length")[0, 0]
            index = int(result.get_response().id)
            tokens[index] += result.as_numpy("output_ids")[0, 0][:length].tolist()
        return [tokenizer.decode(ids, skip_special_tokens=True) for ids in tokens]

    return ask
