"""A tokenizer built from GGUF fields gives the ids of the model's own, and gives text back."""

from __future__ import annotations

import json
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from gguf import TokenType
from gguf_files import BYTES, TOKENIZER, write_gguf, zeros
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from builder.errors import ModelError
from builder.source import gguf_tokenizer, open_source
from builder.source.gguf_file import read
from builder.source.pretokenizers import PRETOKENIZERS

TEXTS = [
    "Hello, world!",
    "In 2024, 1234567 people paid $3.50 each; ½ of ² and ٣.",
    "def f(x):\n    return {'a': [x**2 for _ in range(10)]}  # ok\n\n\n\tend",
    "你好，世界！今天天气不错。こんにちは 안녕하세요",
    "🙂👩‍👩‍👧‍👦🇩🇪 fin",
    "   three spaces before,   between, and after   ",
    "it's they'll I'D we've DON'T",
    "naïve café résumé Ünïcödé",
    "e\u0301 decomposed",
    "\r\n windows\r\nlines\r\n",
    "",
    " ",
    "\n",
    "CamelCaseWords andUPPERCase",
]


@pytest.fixture(scope="module")
def smollm2(smollm2_gguf: Path) -> dict[str, Any]:
    """The fields of SmolLM2's file."""
    return read(smollm2_gguf).fields


def build(fields: dict[str, Any]) -> Tokenizer:
    files = gguf_tokenizer.files(Path("model.gguf"), fields)
    return Tokenizer.from_str(files["tokenizer.json"]().decode())


@pytest.fixture(scope="module")
def tokenizer(smollm2: dict[str, Any]) -> Tokenizer:
    return build(smollm2)


@pytest.mark.parametrize("text", TEXTS)
def test_smollm2_gives_text_back(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


# The model's vocabulary has no token for a few control characters and for bytes that UTF-8 uses
# from U+40000 on; its own tokenizer drops them too.
TEXT = st.text(st.characters(max_codepoint=0x3FFFF, exclude_categories=("Cs", "Cc")))


@given(TEXT)
@settings(max_examples=200, deadline=None)
def test_smollm2_gives_any_text_back(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_smollm2_has_no_bos_digits_stand_alone_and_special_tokens_are_one(
    tokenizer: Tokenizer,
) -> None:
    assert tokenizer.encode("1234").tokens == ["1", "2", "3", "4"]
    chat = tokenizer.encode("<|im_start|>user\nHi<|im_end|>\n")
    assert chat.tokens == ["<|im_start|>", "user", "Ċ", "Hi", "<|im_end|>", "Ċ"]
    assert chat.ids[0] == 1
    assert chat.ids[4] == 2
    assert tokenizer.decode(chat.ids) == "user\nHi\n"


def test_smollm2s_configs_say_what_ends_an_answer(smollm2_gguf: Path) -> None:
    files = open_source(smollm2_gguf).files
    generation = json.loads(files["generation_config.json"]())
    assert generation == {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    config = json.loads(files["tokenizer_config.json"]())
    assert config["eos_token"] == "<|im_end|>"
    assert config["add_bos_token"] is False
    assert "<|im_start|>" in config["chat_template"]


@pytest.mark.reference
def test_transformers_loads_the_files_and_agrees(
    smollm2_gguf: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    for name, content in open_source(smollm2_gguf).files.items():
        (tmp_path / name).write_bytes(content())
    loaded = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.eos_token_id == 2
    for text in TEXTS:
        assert loaded(text).input_ids == tokenizer.encode(text).ids
    messages = [{"role": "user", "content": "Hi"}]
    text = loaded.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")


def slow_tokenizer(kind: str, fields: dict[str, Any], folder: Path) -> Any:
    """transformers' pure Python tokenizer over the same vocabulary: an independent reference."""
    transformers = pytest.importorskip("transformers")
    tokens, merges = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.merges"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(transformers, kind)(str(folder / "vocab.json"), str(folder / "merges.txt"))


@pytest.mark.reference
@pytest.mark.parametrize(("pre", "kind"), [("gpt-2", "GPT2Tokenizer"), ("qwen2", "Qwen2Tokenizer")])
def test_ids_are_those_of_transformers_python_tokenizer(
    smollm2: dict[str, Any], tmp_path: Path, pre: str, kind: str
) -> None:
    slow = slow_tokenizer(kind, smollm2, tmp_path)
    ours = build({**smollm2, "tokenizer.ggml.pre": pre})
    for text in TEXTS:
        assert ours.encode(text).ids == slow.encode(text), text


@pytest.mark.reference
def test_smollm_is_gpt2_between_single_digits(
    smollm2: dict[str, Any], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    slow = slow_tokenizer("GPT2Tokenizer", smollm2, tmp_path)
    for text in TEXTS:
        pieces, last = [], ""
        for character in text:
            if character.isnumeric():
                pieces += [last, character]
                last = ""
            else:
                last += character
        pieces.append(last)
        wanted = [token for piece in pieces for token in slow.encode(piece)]
        assert tokenizer.encode(text).ids == wanted, text


@pytest.mark.reference
def test_llama3s_pattern_is_the_one_that_transformers_writes() -> None:
    from transformers.convert_slow_tokenizer import TikTokenConverter

    assert PRETOKENIZERS["llama-bpe"].patterns == (TikTokenConverter().pattern,)


CUTS = {
    "default": ("abc12345 it's!", ["abc", "123", "45", "Ġit", "'", "s", "!"]),
    "gpt-2": ("abc12345 it's!", ["abc", "12345", "Ġit", "'s", "!"]),
    "smollm": ("abc123 it's!", ["abc", "1", "2", "3", "Ġit", "'s", "!"]),
    "llama-bpe": ("abc12345 IT'S\n\nx", ["abc", "123", "45", "ĠIT", "'S", "ĊĊ", "x"]),
    "qwen2": ("abc123 IT'S\n\nx", ["abc", "1", "2", "3", "ĠIT", "'S", "ĊĊ", "x"]),
    "tekken": ("abcDEFghi 12 IT's", ["abc", "DEFghi", "Ġ", "1", "2", "ĠIT", "'s"]),
    "gpt-4o": ("abcDEF 1234 it's", ["abc", "DEF", "Ġ", "123", "4", "Ġit's"]),
    "deepseek-coder": ("ab 12\nc!", ["ab", "Ġ", "1", "2", "Ċ", "c", "!"]),
}


@pytest.mark.parametrize("pre", sorted(CUTS))
def test_text_is_cut_as_the_pre_tokenizer_says(pre: str) -> None:
    text, wanted = CUTS[pre]
    tokenizer = build(fields_of({"pre": pre}))
    assert [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)] == wanted


@pytest.mark.parametrize("pre", sorted(PRETOKENIZERS))
@pytest.mark.parametrize("text", TEXTS)
def test_every_pre_tokenizer_gives_text_back(pre: str, text: str) -> None:
    import unicodedata

    tokenizer = build(fields_of({"pre": pre}))
    wanted = unicodedata.normalize("NFC", text) if PRETOKENIZERS[pre].nfc else text
    assert tokenizer.decode(tokenizer.encode(text).ids) == wanted


def fields_of(changes: dict[str, Any]) -> dict[str, Any]:
    """The smallest byte-level tokenizer, changed; None removes a field."""
    fields = {**TOKENIZER, **changes}
    return {
        "general.architecture": "llama",
        **{f"tokenizer.ggml.{n}": v for n, v in fields.items() if v is not None},
    }


def test_a_bos_and_an_eos_are_added_where_the_file_says() -> None:
    fields = {"bos_token_id": 257, "eos_token_id": 257}
    plain = build(fields_of(fields)).encode("ab").ids
    assert plain == [256]
    both = build(fields_of({**fields, "add_bos_token": True, "add_eos_token": True}))
    assert both.encode("ab").ids == [257, 256, 257]
    assert both.encode("ab", "a").ids == [257, 256, 257, 257, BYTES.index("a"), 257]
    assert both.encode("ab", add_special_tokens=False).ids == [256]
    assert build(fields_of({**fields, "pre": "llama-bpe"})).encode("ab").ids == [257, 256]


def test_user_defined_tokens_are_whole_and_not_special() -> None:
    types = [int(TokenType.NORMAL)] * 256 + [int(TokenType.USER_DEFINED), int(TokenType.CONTROL)]
    tokens = [*BYTES, "<think> x", "<|im_end|>"]
    tokenizer = build(fields_of({"tokens": tokens, "token_type": types, "merges": []}))
    ids = tokenizer.encode("a<think> x<|im_end|>").ids
    assert ids == [BYTES.index("a"), 256, 257]
    assert tokenizer.decode(ids) == "a<think> x"


def test_every_end_of_an_answer_is_in_the_generation_config() -> None:
    tokens = [*BYTES, "<|eot_id|>", "<|im_end|>", "</s>"]
    fields = fields_of({"tokens": tokens, "token_type": [1] * 256 + [3] * 3, "merges": []})
    fields |= {"tokenizer.ggml.eos_token_id": 258, "tokenizer.ggml.eot_token_id": 256}

    def ends(template: str) -> Any:
        files = gguf_tokenizer.files(
            Path("model.gguf"), {**fields, "tokenizer.chat_template": template}
        )
        return json.loads(files["generation_config.json"]())["eos_token_id"]

    assert ends("{{ messages }}") == [258, 256]
    assert ends("<|im_start|>{{ messages }}<|im_end|>") == [258, 256, 257]


def test_named_chat_templates_are_kept() -> None:
    fields = fields_of({}) | {
        "tokenizer.chat_template": "plain",
        "tokenizer.chat_template.tool_use": "tools",
    }
    config = gguf_tokenizer.files(Path("m.gguf"), fields)["tokenizer_config.json"]()
    assert json.loads(config)["chat_template"] == [
        {"name": "default", "template": "plain"},
        {"name": "tool_use", "template": "tools"},
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "rwkv"}, "'rwkv'; known are gpt2, llama"),
        ({"model": None}, "can't be converted"),
        ({"pre": "martian"}, r"tokenizer\.ggml\.pre .*'martian'; known are default, gpt-2"),
        ({"tokens": None}, r"no field tokenizer\.ggml\.tokens"),
        ({"merges": None}, r"no field tokenizer\.ggml\.merges"),
        ({"merges": ["a q9"]}, "'a q9'"),
        ({"merges": ["ab"]}, "'ab'"),
        ({"tokens": ["a", "a"], "merges": []}, "1 tokens that occur twice"),
        ({"token_type": [1]}, "258 tokens, 1 types"),
        ({"eos_token_id": 258}, "eos_token_id .*258 of 258"),
        ({"model": "llama"}, r"no field tokenizer\.ggml\.scores"),
    ],
)
def test_fields_that_cannot_be_used_are_named_when_the_model_is_opened(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        gguf_tokenizer.files(Path("model.gguf"), fields_of(changes))


def test_an_unknown_pre_tokenizer_stops_before_anything_is_written(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", zeros(), tokenizer={**TOKENIZER, "pre": "martian"})
    with pytest.raises(ModelError, match="'martian'"):
        open_source(path)


PIECES = [
    *("▁", "a", "b", "c", "d", "e", "l", "o", "▁a", "ab", "bc", "cd", "abc", "▁ab", "▁abc"),
    *("de", "cde", "el", "lo", "ello", "▁e", "bcd", "ll", "oo", "lloo", "▁▁", "▁▁▁"),
]
SENTENCEPIECE: dict[str, Any] = {
    "model": "llama",
    "pre": "default",
    "tokens": ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *PIECES],
    "scores": [0.0] * 259 + [-float((7 * i) % len(PIECES)) for i in range(len(PIECES))],
    "token_type": [2, 3, 3] + [6] * 256 + [1] * len(PIECES),
    "merges": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "unknown_token_id": 0,
}


def sentencepiece(text: str) -> list[int]:
    """Sentencepiece's BPE in its plainest form: join the best-scored neighbours, repeat."""
    ids = {token: i for i, token in enumerate(SENTENCEPIECE["tokens"])}
    scores = SENTENCEPIECE["scores"]
    symbols = list("▁" + text.replace(" ", "▁")) if text else []
    while True:
        pairs = [a + b for a, b in pairwise(symbols)]
        known = [(-scores[ids[pair]], i) for i, pair in enumerate(pairs) if pair in PIECES]
        if not known:
            break
        _, at = min(known)
        symbols[at : at + 2] = [pairs[at]]
    return [
        token
        for symbol in symbols
        for token in ([ids[symbol]] if symbol in ids else [3 + byte for byte in symbol.encode()])
    ]


@given(st.text(alphabet="abcdelo é世", max_size=30))
@settings(max_examples=500, deadline=None)
def test_sentencepiece_ids_are_those_of_its_algorithm(text: str) -> None:
    tokenizer = build(fields_of(SENTENCEPIECE))
    assert tokenizer.encode(text, add_special_tokens=False).ids == sentencepiece(text)


@pytest.mark.parametrize("text", [t for t in TEXTS if t])
def test_sentencepiece_gives_text_back_and_begins_with_its_bos(text: str) -> None:
    tokenizer = build(fields_of(SENTENCEPIECE))
    ids = tokenizer.encode(text).ids
    assert ids[0] == 1
    assert tokenizer.decode(ids) == text
    bare = build(fields_of({**SENTENCEPIECE, "add_space_prefix": False}))
    assert bare.encode("ab").tokens == ["<s>", "ab"]
    assert bare.decode(bare.encode(text).ids) == text
