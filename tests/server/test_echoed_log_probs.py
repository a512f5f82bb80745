"""`echo` with `logprobs`: the prompt's tokens come first, each where it stands in the text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest
from live_proxy import config
from small_tokenizers import BOS, EOS, byte_level, metaspace, write_folder

from server.app import create_app
from server.backend.base import PromptLogProb
from server.backend.memory import MemoryBackend, Script

PROMPT, ANSWER = "Say café 😀", " Grüße 😀 dog"


@pytest.mark.parametrize("make", [byte_level, metaspace])
@pytest.mark.parametrize("kind", ["text", "ids"])
async def test_each_token_is_told_with_its_place_in_the_echoed_text(
    make: Any, kind: str, tmp_path: Path
) -> None:
    tokenizer = make()
    folder = write_folder(tmp_path, tokenizer)
    ids = tokenizer.encode(PROMPT).ids
    answer = tokenizer.encode(ANSWER, add_special_tokens=False).ids
    script = Script(
        messages=[[token] for token in (*answer, tokenizer.token_to_id(EOS))],
        prompt=[PromptLogProb(log_prob=-1.5, top=[(5, -0.1)])] * (len(ids) - 1),
    )
    settings = config(folder, model={"context_logits": True, "generation_logits": True})
    transport = httpx2.ASGITransport(create_app(settings, MemoryBackend(lambda _: script)))
    async with httpx2.AsyncClient(transport=transport, base_url="http://proxy") as client:
        values = {"prompt": PROMPT if kind == "text" else ids, "echo": True, "logprobs": 1}
        response = await client.post("/v1/completions", json={**values, "max_tokens": 40})
    (choice,) = response.json()["choices"]
    text, told = choice["text"], choice["logprobs"]
    echoed = PROMPT if kind == "text" else tokenizer.decode(ids, skip_special_tokens=False)
    assert text.startswith(echoed)
    assert told["token_logprobs"] == [None, *[-1.5] * (len(ids) - 1), *[-0.5] * len(answer)]
    assert told["top_logprobs"][0] is None
    offsets = told["text_offset"]
    assert offsets == sorted(offsets)
    assert offsets[len(ids)] == len(echoed)
    for name, offset in zip(told["tokens"], offsets, strict=True):
        if name != BOS and not name.startswith("bytes:"):
            assert text[offset:].lstrip(" ").startswith(name.lstrip(" "))
