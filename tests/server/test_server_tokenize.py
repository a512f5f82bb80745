"""/tokenize and /detokenize of the whole application, against the tokenizer itself."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest
from live_proxy import config
from tokenizers import Tokenizer

from server.app import create_app
from server.backend.memory import MemoryBackend, Script
from server.edge.application import Application
from server.text.tokenizer import TextTokenizer

TEXT = "Grüße <|im_end|> 😀 the quick"
MESSAGES = [{"role": "user", "content": "hi"}]
RENDERED = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def proxy(tiny_tokenizer: Path) -> Application:
    return create_app(config(tiny_tokenizer), MemoryBackend(lambda _: Script()))


@pytest.fixture
def tokenizer(tiny_tokenizer: Path) -> Tokenizer:
    return Tokenizer.from_file(str(tiny_tokenizer / "tokenizer.json"))


async def posted(proxy: Application, path: str, status: int = 200, **values: Any) -> Any:
    transport = httpx2.ASGITransport(app=proxy)
    async with httpx2.AsyncClient(transport=transport, base_url="http://proxy") as client:
        response = await client.post(path, json=values)
    assert response.status_code == status, response.text
    return response.json()


async def test_a_prompt_becomes_vllms_answer(proxy: Application, tokenizer: Tokenizer) -> None:
    encoding = tokenizer.encode(TEXT)
    answer = await posted(proxy, "/tokenize", prompt=TEXT)
    assert answer == {
        "count": len(encoding.ids),
        "max_model_len": 256,
        "tokens": encoding.ids,
        "token_strs": None,
    }
    told = await posted(proxy, "/v1/tokenize", prompt=TEXT, return_token_strs=True)
    assert told["token_strs"] == encoding.tokens


async def test_messages_are_tokenized_as_a_chat_would_be(
    proxy: Application, tokenizer: Tokenizer
) -> None:
    answer = await posted(proxy, "/tokenize", messages=MESSAGES)
    assert answer["tokens"] == tokenizer.encode(RENDERED).ids
    bare = await posted(proxy, "/tokenize", messages=MESSAGES, add_generation_prompt=False)
    assert bare["tokens"] == tokenizer.encode(RENDERED.removesuffix("<|im_start|>assistant\n")).ids


async def test_a_prompt_longer_than_the_context_is_tokenized_too(proxy: Application) -> None:
    answer = await posted(proxy, "/tokenize", prompt="a b " * 3000)
    assert answer["count"] > answer["max_model_len"]


async def test_tgis_body_gets_each_tokens_place_in_bytes(
    proxy: Application, tokenizer: Tokenizer
) -> None:
    answer = await posted(proxy, "/tokenize", inputs=TEXT, parameters={"max_new_tokens": 3})
    assert [token["id"] for token in answer] == tokenizer.encode(TEXT).ids
    data = TEXT.encode()
    for token in answer:
        assert data[token["start"] : token["stop"]].decode() == token["text"]
    assert (answer[0]["start"], answer[-1]["stop"]) == (0, len(data))


async def test_tokens_become_their_text_again_under_both_names(
    proxy: Application, tokenizer: Tokenizer
) -> None:
    ids = tokenizer.encode(TEXT).ids
    assert await posted(proxy, "/detokenize", tokens=ids) == {"prompt": TEXT, "text": TEXT}
    skipped = await posted(proxy, "/v1/detokenize", tokens=ids, skip_special_tokens=True)
    assert skipped["text"] == TEXT.replace("<|im_end|>", "")


@pytest.mark.parametrize(
    ("path", "values", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "x", "messages": MESSAGES}, "messages"),
        ("/tokenize", {"prompt": "x", "tools": []}, "tools"),
        ("/tokenize", {"prompt": ["x"]}, "prompt"),
        ("/tokenize", {"messages": [{"role": "user"}]}, "messages[0].content"),
        ("/tokenize", {"messages": MESSAGES, "documents": [{}]}, "documents"),
        ("/tokenize", {"prompt": "x", "no_such": 1}, "no_such"),
        ("/detokenize", {"tokens": [1, 10**6]}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens"),
        ("/detokenize", {"tokens": "x"}, "tokens"),
        ("/detokenize", {}, "tokens"),
    ],
)
async def test_what_is_wrong_is_named(
    proxy: Application, path: str, values: dict[str, Any], param: str
) -> None:
    error = (await posted(proxy, path, status=400, **values))["error"]
    assert error["param"] == param


async def test_an_unknown_model_is_not_found(proxy: Application) -> None:
    error = (await posted(proxy, "/tokenize", status=404, model="x", prompt="y"))["error"]
    assert error["code"] == "model_not_found"


async def test_a_text_that_would_fill_the_memory_is_refused(proxy: Application) -> None:
    for param in ("prompt", "inputs"):
        text = "a b " * (256 * 1024 + 1)
        error = (await posted(proxy, "/tokenize", status=400, **{param: text}))["error"]
        assert error["param"] == param


async def test_the_names_of_many_tokens_are_looked_up_beside_the_event_loop(
    proxy: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []

    def watched(self: TextTokenizer, ids: Sequence[int]) -> list[str]:
        threads.append(threading.current_thread())
        return [str(token) for token in ids]

    monkeypatch.setattr(TextTokenizer, "token_strings", watched)
    answer = await posted(proxy, "/tokenize", prompt="a b " * 3000, return_token_strs=True)
    assert len(answer["token_strs"]) == answer["count"] > 4096
    assert threads != [threading.current_thread()]
