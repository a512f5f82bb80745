"""Bodies that parsers choke on."""

from __future__ import annotations

import json

import pytest
from abused import Proxy
from raw_client import MIB, posted, said, statuses

PATHS = (
    b"/v1/chat/completions",
    b"/v1/completions",
    b"/v1/responses",
    b"/v1/responses/input_tokens",
    b"/v1/embeddings",
    b"/tokenize",
    b"/detokenize",
)
BOMBS: dict[str, bytes] = {
    "arrays": b"[" * 100_000,
    "objects": b'{"a":' * 100_000,
    "within": b'{"prompt":"a","input":"a","x":%b%b}' % (b"[" * 100_000, b"]" * 100_000),
    "in a string": json.dumps({"prompt": "[" * 100_000}).encode(),
    "utf-8": b'{"prompt":"\xff\xfe","input":"\xc3"}',
    "key": b'{"\xff":1}',
    "surrogate": b'{"prompt":"\\ud800","input":"\\ud800","messages":[{"role":"user","content":'
    b'"\\ud800"}]}',
    "nul": b'\x00{"prompt":"a"}',
    "nul within": b'{"prompt":"a\x00b"}',
    "nul escaped": b'{"prompt":"a\\u0000b","input":"a\\u0000b"}',
    "twice": b'{"prompt":"a","input":"a","prompt":"b","input":"b","model":"m","model":"n"}',
    "digits": b'{"prompt":"a","input":"a","seed":%b}' % (b"9" * 100_000),
    "fraction": b'{"prompt":"a","input":"a","temperature":0.%b}' % (b"1" * 100_000),
    "exponent": b'{"prompt":"a","input":"a","temperature":1e999999999}',
    "id": b'{"tokens":[%b],"prompt":[%b],"input":[%b]}' % ((b"9" * 400,) * 3),
    "negative": b'{"tokens":[-1],"prompt":[-1],"input":[-1]}',
    "nan": b'{"prompt":"a","temperature":NaN}',
    "empty": b"",
    "white": b" " * 1_000_000,
    "null": b"null",
    "utf-16": '{"prompt":"a"}'.encode("utf-16"),
    "mark": b'\xef\xbb\xbf{"prompt":"a"}',
    "wide": b'{"prompt":[%b"a"]}' % (b'"a",' * 500_000),
    "many keys": b"{%b}" % b",".join(b'"k%d":1' % key for key in range(200_000)),
    "one key": b'{"%b":1}' % (b"k" * 1_000_000),
    "ids": b'{"tokens":[%b1],"prompt":[%b1],"input":[%b1]}' % ((b"1," * 300_000,) * 3),
    "long": json.dumps({"prompt": "a " * 100_000, "input": "a " * 100_000}).encode(),
}


@pytest.mark.parametrize("bomb", BOMBS)
async def test_bodies_that_parsers_choke_on_get_an_answer(proxy: Proxy, bomb: str) -> None:
    for path in PATHS:
        answer = await said(proxy, posted(BOMBS[bomb], path, b"Connection: close\r\n"))
        (status,) = statuses(answer)
        assert 200 <= status < 500, (path, answer[:2000])
        json.loads(answer.partition(b"\r\n\r\n")[2])
        assert len(answer) < 8 * MIB, "an error is short"
