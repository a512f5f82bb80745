"""Promise: a guided answer keeps to its grammar, and a broken grammar is refused by name."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from tiny_engine import byte_level_tokenizer, sentencepiece_tokenizer, write_tokenizer
from tokenizers import Tokenizer

from builder.errors import RequestError
from triton_repo.executor.guide import Guide, Guides

PADDED = 400
ENDS = (1, 2)


@pytest.fixture(scope="module", params=[byte_level_tokenizer, sentencepiece_tokenizer])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    """Both kinds of tokenizer: bytes as characters, and spaces as `▁` with bytes as tokens."""
    made: Tokenizer = request.param()
    return made


@pytest.fixture(scope="module")
def guides(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Guides:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder, tokenizer)
    return Guides(folder, PADDED, ENDS)


def allowed(guide: Guide) -> list[int]:
    logits = np.zeros(PADDED, np.float32)
    guide.mask(logits)
    return np.flatnonzero(logits == 0).tolist()


def answer(guide: Guide, seed: int, most: int = 400) -> list[int]:
    """Tokens drawn evenly from those allowed; ends are taken as soon as they are."""
    random, tokens = np.random.default_rng(seed), []
    while not guide.finished and len(tokens) < most:
        choices = allowed(guide)
        ends = [token for token in choices if token in ENDS]
        tokens.append(int(random.choice(ends or choices)))
        guide.accept(tokens[-1])
    return tokens


def text(tokenizer: Tokenizer, tokens: list[int]) -> str:
    decoded: str = tokenizer.decode(tokens)
    return decoded


def accepts(guide: Guide, tokenizer: Tokenizer, word: str) -> bool:
    """Whether the grammar's language holds a word of ASCII characters, fed one by one."""
    for character in word:
        token = tokenizer.token_to_id({" ": "Ġ", "\n": "Ċ"}.get(character, character))
        if token not in allowed(guide):
            return False
        guide.accept(token)
    return ENDS[0] in allowed(guide)


SCHEMAS = [
    {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
    {"enum": ["red", "green", 3, None, True]},
    {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3},
    {"type": "string", "pattern": "^[a-c]{2,4}$"},
    {"anyOf": [{"type": "null"}, {"const": {"x": [1]}}]},
    {
        "type": "object",
        "properties": {"n": {"$ref": "#/$defs/n"}},
        "required": ["n"],
        "additionalProperties": False,
        "$defs": {"n": {"type": "number", "minimum": 2, "maximum": 9}},
    },
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: json.dumps(schema)[:40])
def test_what_a_schema_lets_through_is_valid_by_it(
    guides: Guides, tokenizer: Tokenizer, schema: Any
) -> None:
    complete = 0
    for seed in range(10):
        tokens = answer(guides.compile("json_schema", json.dumps(schema)), seed)
        if tokens[-1] in ENDS:
            jsonschema.validate(json.loads(text(tokenizer, tokens[:-1])), schema)
            complete += 1
    assert complete


def test_plain_json_is_an_object_or_an_array(guides: Guides, tokenizer: Tokenizer) -> None:
    firsts = {text(tokenizer, [token]).strip()[:1] for token in allowed(guides.compile("json", ""))}
    assert firsts == {"{", "["}


def test_a_regex_is_matched_whole(guides: Guides, tokenizer: Tokenizer) -> None:
    for seed in range(20):
        tokens = answer(guides.compile("regex", "[0-9]{2,3}(px|em)?"), seed)
        assert re.fullmatch("[0-9]{2,3}(px|em)?", text(tokenizer, tokens[:-1]))


GRAMMARS: list[tuple[str, str, Callable[[str], object]]] = [
    ('root ::= "ab" | "b"*', "abc", re.compile("ab|b*").fullmatch),
    ('root ::= [a-b]+ "a"', "abc", re.compile("[ab]+a").fullmatch),
    ('root ::= x{2,3} "b"\nx ::= "a"{1,2}', "ab", re.compile("a{2,6}b").fullmatch),
    ("root ::= [^a]? .", "ab\n", re.compile(r"(?s)[^a]?.").fullmatch),
    (
        '# words\nroot ::= word   # one\n  | word " " word\nword ::= ("a" |\n "b"){2}',
        "ab ",
        re.compile("[ab]{2}( [ab]{2})?").fullmatch,
    ),
    ('fooBar ::= "a"\nfoobar ::= "b"\nroot ::= fooBar foobar?', "ab", re.compile("ab?").fullmatch),
    (r'root ::= "\x61\u0062" [\x61-\u0062\-\]/]', "ab-]/", re.compile(r"ab[ab\-\]/]").fullmatch),
    (r'root ::= "\"" [^"\\]* "\""', 'a"\\', re.compile(r'"[^"\\]*"').fullmatch),
    ("root ::= [+--]", "+,-.", re.compile(r"[+,\-]").fullmatch),
    ('root ::= "a"{2,} ""', "ab", re.compile("a{2,}").fullmatch),
    ('root ::= "a" root "b" | ""', "ab", lambda w: w == "a" * (n := len(w) // 2) + "b" * n),
    (
        'root ::= "(" list ")" | "a"\nlist ::= root ("," root)* | ""',
        "(a,)",
        lambda w: _bracketed(w) == len(w),
    ),
]


def _bracketed(word: str, at: int = 0) -> int | None:
    """Where the nested list that begins at `at` ends; None if there is none."""
    if word[at : at + 1] == "a":
        return at + 1
    if word[at : at + 1] != "(":
        return None
    if word[at + 1 : at + 2] == ")":
        return at + 2
    end = _bracketed(word, at + 1)
    while end is not None and word[end : end + 1] == ",":
        end = _bracketed(word, end + 1)
    return end + 1 if end is not None and word[end : end + 1] == ")" else None


@pytest.mark.parametrize(
    ("grammar", "alphabet", "holds"), GRAMMARS, ids=[g[0][:30] for g in GRAMMARS]
)
def test_an_ebnf_grammar_has_exactly_its_words(
    tmp_path: Path, grammar: str, alphabet: str, holds: Callable[[str], object]
) -> None:
    tokenizer = byte_level_tokenizer()
    write_tokenizer(tmp_path, tokenizer)
    start = Guides(tmp_path, PADDED, ENDS).compile("ebnf_grammar", grammar)
    for size in range(6 if len(alphabet) < 4 else 5):
        for letters in itertools.product(alphabet, repeat=size):
            word = "".join(letters)
            assert accepts(start.fork(), tokenizer, word) == bool(holds(word)), word


BROKEN = [
    ("json_schema", "{"),
    ("json_schema", '"x"'),
    ("json_schema", '{"type": "nope"}'),
    ("json_schema", '{"$ref": "#/nowhere"}'),
    ("json_schema", '{"$ref": "http://127.0.0.1:9/schema"}'),
    ("json_schema", '{"enum": []}'),
    ("json_schema", '{"not": {}}'),
    ("json_schema", '{"items":' * 10_000),
    ("json_schema", ""),
    ("json_schema", "\udcff"),
    ("regex", "("),
    ("regex", r"(a)\1"),
    ("regex", "(?=a)"),
    ("regex", ""),
    ("regex", "a" * 300_000),
    ("ebnf_grammar", ""),
    ("ebnf_grammar", "hello"),
    ("ebnf_grammar", 'rules ::= "a"'),
    ("ebnf_grammar", "root ::= other"),
    ("ebnf_grammar", 'root ::= ("a"'),
    ("ebnf_grammar", 'root ::= "a" )'),
    ("ebnf_grammar", 'root ::= "a'),
    ("ebnf_grammar", "root ::= [b-a]"),
    ("ebnf_grammar", "root ::= []"),
    ("ebnf_grammar", 'root ::= "a"\nroot ::= "b"'),
    ("ebnf_grammar", r'root ::= "\Uffffffff"'),
    ("ebnf_grammar", "root ::= " + "(" * 50_000),
    ("ebnf_grammar", "root ::= root"),
    ("ebnf_grammar", 'root ::= "a"{3,2}'),
]


@pytest.mark.parametrize(("kind", "broken"), BROKEN, ids=[f"{k} {t[:20]!r}" for k, t in BROKEN])
def test_a_broken_guide_is_refused_by_name(guides: Guides, kind: str, broken: str) -> None:
    with pytest.raises(RequestError, match="guided_decoding_guide") as refused:
        guides.compile(kind, broken)
    assert refused.value.param == "guided_decoding_guide"
    assert len(str(refused.value)) < 600


def test_an_unknown_kind_is_refused_by_name(guides: Guides) -> None:
    with pytest.raises(
        RequestError, match=r"guided_decoding_guide_type.*json_schema.*found 'lark'"
    ):
        guides.compile("lark", "start: A")


def test_at_its_end_only_ends_of_sequence_may_come(guides: Guides, tokenizer: Tokenizer) -> None:
    guide = guides.compile("regex", "ab")
    for letter in "ab":
        guide.accept(tokenizer.token_to_id(letter))
    assert allowed(guide) == list(ENDS)
    guide.accept(ENDS[1])
    assert guide.finished
    assert allowed(guide) == list(ENDS)


def test_forks_and_requests_go_their_own_ways(guides: Guides, tokenizer: Tokenizer) -> None:
    a = tokenizer.token_to_id("a")
    first = guides.compile("regex", "a(a|b)")
    first.accept(a)
    second = first.fork()
    first.accept(a)
    assert allowed(first) == list(ENDS)
    assert {text(tokenizer, [token]) for token in allowed(second)} == {"a", "b"}
    other = guides.compile("regex", "a(a|b)")
    assert {text(tokenizer, [token]) for token in allowed(other)} == {"a"}


def test_ids_beyond_the_tokenizer_are_never_allowed(guides: Guides, tokenizer: Tokenizer) -> None:
    found = allowed(guides.compile("regex", "(?s:.*)"))
    assert max(found) < tokenizer.get_vocab_size()
    assert set(ENDS) <= set(found)


def _schema(random: np.random.Generator, depth: int) -> Any:
    kinds = ["integer", "number", "string", "boolean", "null", "enum"]
    kind = random.choice([*kinds, *["object", "array", "anyOf"] * (depth > 0)])
    if kind == "object":
        names = [f"p{i}" for i in range(random.integers(0, 4))]
        fields = {name: _schema(random, depth - 1) for name in names}
        return {
            "type": "object",
            "properties": fields,
            "required": names[: random.integers(0, len(names) + 1)],
            "additionalProperties": False,
        }
    if kind == "array":
        low = int(random.integers(0, 3))
        return {
            "type": "array",
            "items": _schema(random, depth - 1),
            "minItems": low,
            "maxItems": 3,
        }
    if kind == "anyOf":
        return {"anyOf": [_schema(random, depth - 1) for _ in range(random.integers(1, 4))]}
    if kind == "enum":
        return {"enum": ["a", 1, None][: random.integers(1, 4)]}
    return {"type": str(kind), **({"maxLength": 5} if kind == "string" else {})}


def _broken(random: np.random.Generator, schema: Any) -> str:
    """The schema's text with a few characters taken out, doubled or replaced."""
    characters = list(json.dumps(schema))
    for _ in range(random.integers(1, 5)):
        place = int(random.integers(len(characters)))
        characters[place] = random.choice(["", '"', "{", "]", "\\", "\0", "é", "x", "9", "}}"])
    return "".join(characters)


def test_two_hundred_schemas_valid_and_broken_give_valid_answers_or_a_refusal(
    guides: Guides, tokenizer: Tokenizer
) -> None:
    random = np.random.default_rng(6)
    complete = refused = 0
    for number in range(200):
        schema = _schema(random, 2)
        guide_text = json.dumps(schema) if number % 2 else _broken(random, schema)
        try:
            guide = guides.compile("json_schema", guide_text)
        except RequestError:
            assert number % 2 == 0, guide_text
            refused += 1
            continue
        tokens = answer(guide, number, most=120)
        if tokens[-1] in ENDS:
            found = json.loads(text(tokenizer, tokens[:-1]))
            if number % 2:
                jsonschema.validate(found, schema)
            complete += 1
    assert complete > 100
    assert refused > 30


def _chain(rule: str, last: str, count: int) -> str:
    """An EBNF grammar of `count` rules, each naming the next."""
    rules = [rule.format(i=i, next=i + 1) for i in range(count)]
    return "\n".join(["root ::= r0", *rules, f"r{count} ::= {last}"])


def _references(link: Callable[[Any], Any], count: int) -> str:
    """A JSON schema of `count` definitions, each referring to the next."""
    links = {f"d{i}": link({"$ref": f"#/$defs/d{i + 1}"}) for i in range(count)}
    end = {f"d{count}": {"type": "integer"}}
    return json.dumps({"$ref": "#/$defs/d0", "$defs": {**links, **end}})


def _list_of(part: Any, depth: int = 20) -> Any:
    return {"type": "array", "items": _list_of(part, depth - 1)} if depth else part


HOSTILE = [
    *(("ebnf_grammar", _chain('r{i} ::= "a" r{next}', '"b"', n)) for n in (990, 1400)),
    *(("ebnf_grammar", _chain('r{i} ::= "a" r{next}', '"b" root?', n)) for n in (990, 1400)),
    *(("ebnf_grammar", _chain('r{i} ::= ("a" ("b" r{next})*)', '"b"', n)) for n in (240, 600)),
    *(("json_schema", _references(lambda ref: ref, n)) for n in (740, 1800)),
    *(("json_schema", _references(lambda ref: {"anyOf": [ref, {}]}, n)) for n in (370, 1300)),
    *(("json_schema", _references(_list_of, n)) for n in (65, 110)),
    ("json_schema", _references(_list_of, 110).replace("$ref", "\\u0024ref")),
    ("regex", "a?" * 2000),
    ("regex", "(" * 4000 + "a" + ")" * 4000),
]
"""Guides made to take the stack or the time of a process, at the limits and beyond them."""


def test_hostile_guides_cannot_take_the_process_down(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, byte_level_tokenizer())
    program = (
        "import json, sys, threading, numpy\n"
        "from pathlib import Path\n"
        "from builder.errors import RequestError\n"
        "from triton_repo.executor.guide import Guides\n"
        "def run():\n"
        "    guides = Guides(Path(sys.argv[1]), 400, [1])\n"
        "    for kind, text in json.load(sys.stdin):\n"
        "        try:\n"
        "            guide = guides.compile(kind, text).fork()\n"
        "            guide.mask(numpy.zeros(400, numpy.float32))\n"
        "            print('followed', flush=True)\n"
        "        except RequestError:\n"
        "            print('refused', flush=True)\n"
        "thread = threading.Thread(target=run)\n"
        "thread.start()\n"
        "thread.join()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        input=json.dumps(HOSTILE),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-1000:]
    ends = ended.stdout.split()
    assert len(ends) == len(HOSTILE)
    assert {"followed", "refused"} == set(ends)
