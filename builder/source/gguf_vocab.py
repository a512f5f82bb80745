"""GGUF's vocabulary fields, and the two kinds of BPE tokenizer that are built from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from builder.errors import ModelError
from builder.source.pretokenizers import DEFAULT, PRETOKENIZERS, PreTokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4
"""Values of `tokenizer.ggml.token_type` (gguf-py's `TokenType`)."""

_SPACE = "▁"


@dataclass(frozen=True, kw_only=True, eq=False)
class Vocabulary:
    """The tokenizer's fields, checked: `merges` of byte-level BPE, `scores` of sentencepiece."""

    tokens: list[str]
    ids: dict[str, int]
    types: Sequence[int]
    merges: list[tuple[str, str]]
    scores: Sequence[float]
    pre: PreTokenizer
    add_bos: bool
    add_eos: bool
    add_space_prefix: bool
    specials: dict[str, int]

    def special(self, role: str) -> int | None:
        """The token id of a role, such as "bos"."""
        return self.specials.get(role)


def read(path: Path, fields: Mapping[str, Any]) -> Vocabulary:
    """The vocabulary. Raises ModelError for fields that are missing or don't fit each other."""
    get = _Getter(path, fields)
    sentencepiece = fields["tokenizer.ggml.model"] == "llama"
    tokens = get("tokens")
    ids = {token: index for index, token in enumerate(tokens)}
    if len(ids) != len(tokens):
        get.refuse("tokens", f"{len(tokens) - len(ids)} tokens that occur twice")
    pre = _pre(get, sentencepiece)
    types = get("token_type", [NORMAL] * len(tokens))
    scores = get("scores") if sentencepiece else []
    if len(types) != len(tokens) or (sentencepiece and len(scores) != len(tokens)):
        get.refuse("token_type", f"{len(tokens)} tokens, {len(types)} types, {len(scores)} scores")
    return Vocabulary(
        tokens=tokens,
        ids=ids,
        types=types,
        merges=[] if sentencepiece else _merges(get, ids),
        scores=scores,
        pre=pre,
        add_bos=get("add_bos_token", sentencepiece or pre.adds_bos),
        add_eos=get("add_eos_token", False),
        add_space_prefix=get("add_space_prefix", sentencepiece),
        specials=_specials(get, len(tokens)),
    )


@dataclass(frozen=True)
class _Getter:
    path: Path
    fields: Mapping[str, Any]

    def __call__(self, name: str, *default: Any) -> Any:
        key = f"tokenizer.ggml.{name}"
        if key not in self.fields and not default:
            raise ModelError(f"{self.path} has no field {key}", do="convert it again")
        return self.fields.get(key, *default)

    def refuse(self, name: str, found: str, do: str | None = None) -> NoReturn:
        raise ModelError(f"{self.path}: tokenizer.ggml.{name} can't be used", found=found, do=do)


def _pre(get: _Getter, sentencepiece: bool) -> PreTokenizer:
    name = DEFAULT if sentencepiece else get("pre", DEFAULT)
    if name not in PRETOKENIZERS:
        do = f"known are {', '.join(PRETOKENIZERS)}; or convert from the Hugging Face folder"
        get.refuse("pre", repr(name), do)
    return PRETOKENIZERS[name]


def _merges(get: _Getter, ids: Mapping[str, int]) -> list[tuple[str, str]]:
    """Split "a b" into the pair of a and b; the left side may itself begin with a space."""
    merges = []
    for text in get("merges"):
        cut = text.find(" ", 1)
        pair = (text[:cut], text[cut + 1 :])
        if cut < 0 or any(part not in ids for part in (*pair, "".join(pair))):
            get.refuse("merges", f"{text!r}, which isn't of tokens")
        merges.append(pair)
    return merges


def _specials(get: _Getter, size: int) -> dict[str, int]:
    roles = ("bos", "eos", "eot", "eom", "unknown", "padding")
    found = {role: get(f"{role}_token_id", None) for role in roles}
    for role, token in found.items():
        if token is not None and not 0 <= token < size:
            get.refuse(f"{role}_token_id", f"{token} of {size} tokens")
    return {role: token for role, token in found.items() if token is not None}


def byte_level_bpe(vocabulary: Vocabulary) -> Tokenizer:
    """BPE over GPT-2's bytes-as-characters, after the cuts of `tokenizer.ggml.pre`."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    pre = vocabulary.pre
    tokenizer = Tokenizer(
        models.BPE(vocabulary.ids, vocabulary.merges, ignore_merges=pre.ignore_merges)
    )
    if pre.nfc:
        tokenizer.normalizer = normalizers.NFC()
    cuts = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in pre.patterns]
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*cuts, bytes_only])
    tokenizer.decoder = decoders.ByteLevel()
    return _finished(tokenizer, vocabulary)


def sentencepiece_bpe(vocabulary: Vocabulary) -> Tokenizer:
    """Sentencepiece's BPE with byte fallback, as Hugging Face writes Llama 2's."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    unknown = vocabulary.tokens[vocabulary.specials.get("unknown", 0)]
    tokenizer = Tokenizer(
        models.BPE(
            vocabulary.ids,
            _merges_from_scores(vocabulary),
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    spaces = normalizers.Replace(" ", _SPACE)
    steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if vocabulary.add_space_prefix:
        spaces = normalizers.Sequence([normalizers.Prepend(_SPACE), spaces])
        steps.append(decoders.Strip(" ", 1, 0))
    tokenizer.normalizer = spaces
    tokenizer.decoder = decoders.Sequence(steps)
    return _finished(tokenizer, vocabulary)


def _merges_from_scores(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """Sentencepiece joins the neighbours that make the best-scored piece; BPE wants that ranked.

    Every way to make a piece of two is a merge, better-scored pieces first.
    """
    normal = {
        token: score
        for token, score, kind in zip(
            vocabulary.tokens, vocabulary.scores, vocabulary.types, strict=True
        )
        if kind == NORMAL
    }
    pieces = sorted(normal, key=lambda token: (-normal[token], vocabulary.ids[token]))
    return [pair for piece in pieces for pair in _halves(piece, normal)]


def _halves(piece: str, normal: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    for cut in range(1, len(piece)):
        if piece[:cut] in normal and piece[cut:] in normal:
            yield piece[:cut], piece[cut:]


def _finished(tokenizer: Tokenizer, vocabulary: Vocabulary) -> Tokenizer:
    """Add what both kinds have: special and user-defined tokens, BOS and EOS."""
    from tokenizers import AddedToken, processors

    for token, kind in zip(vocabulary.tokens, vocabulary.types, strict=True):
        if kind in (CONTROL, UNKNOWN):
            tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False)])
        elif kind == USER_DEFINED:
            tokenizer.add_tokens([AddedToken(token, special=False, normalized=False)])
    ends = {"bos": vocabulary.add_bos, "eos": vocabulary.add_eos}
    used = {
        role: vocabulary.tokens[vocabulary.specials[role]]
        for role, adds in ends.items()
        if adds and role in vocabulary.specials
    }
    if used:
        first, last = used.get("bos"), used.get("eos")
        single = [part for part in (first, "$A", last) if part]
        pair = [*single, *(f"{part}:1" for part in (first, "$B", last) if part)]
        tokens = [(token, vocabulary.ids[token]) for token in used.values()]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=single, pair=pair, special_tokens=tokens
        )
    return tokenizer
