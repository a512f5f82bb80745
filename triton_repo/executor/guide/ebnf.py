"""xgrammar's EBNF, the grammars that TensorRT-LLM's clients send, read into rules.

The dialect is GBNF's: `name ::= …`, the first rule taken is `root`; "text" and [classes] with
escapes, groups, `|`, `*`, `+`, `?`, `{m}`, `{m,}`, `{m,n}`, comments from `#`. Line breaks are
spaces: a rule ends where the next begins.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

from builder.errors import RequestError

_TOKENS = re.compile(
    r"""(?P<space>(?:\s|\#[^\n]*)+)
    |(?P<rule>[A-Za-z_][\w.-]*)(?=(?:\s|\#[^\n]*)*::=)
    |(?P<name>[A-Za-z_][\w.-]*)
    |(?P<is>::=)
    |(?P<text>"(?:[^"\\\n]|\\.)*")
    |(?P<class>\[\^?(?:[^\]\\\n]|\\.)*\])
    |(?P<times>\{\s*\d+\s*(?:,\s*\d*\s*)?\})
    |(?P<mark>[|()*+?.])""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))", re.DOTALL)
_CHARACTER = r"\\(?:x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|[^xuU])|[^\\]"
_CLASS_ITEM = re.compile(rf"({_CHARACTER})(?:-({_CHARACTER}))?", re.DOTALL)
_PLAIN = {"n": "\n", "r": "\r", "t": "\t", "0": "\0", "b": "\b", "f": "\f"}
_REPEATS = ("*", "+", "?", "times")
_DEEPER = ("rule", "(", *_REPEATS)
MOST_PARTS = 1000
"""What can nest, half of what fits a thread's stack of 8 MiB: llguidance goes down by recursion."""


@dataclass(frozen=True)
class Regex:
    """A character or class, as a regular expression."""

    source: str


@dataclass(frozen=True)
class Name:
    """A rule named by another."""

    name: str


@dataclass(frozen=True)
class Row:
    """Parts one after the other; none is the empty text."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Choice:
    """One of several."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Repeat:
    """A part as often as `times`, a regular expression's suffix, allows."""

    part: Node
    times: str


Node: TypeAlias = "Regex | Name | Row | Choice | Repeat"


def read(text: str) -> dict[str, Node]:
    """The rules of a grammar by their names, `root` among them and none missing.

    Raises RequestError for what isn't a grammar.
    """
    try:
        rules = _Parser(text).rules()
    except RecursionError:
        raise broken("its groups are nested too deep") from None
    if "root" not in rules:
        raise broken("there is no rule root")
    for name in (name for node in rules.values() for name in names(node)):
        if name not in rules:
            raise broken(f"there is no rule {name}")
    return rules


class _Parser:
    """Recursive descent over the tokens of a grammar."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokenize(text)
        self._at = 0
        deeper = sum(kind in _DEEPER for kind, _ in self._tokens)
        if deeper > MOST_PARTS:
            raise broken(f"{deeper} rules, groups and repetitions, more than {MOST_PARTS}")

    def rules(self) -> dict[str, Node]:
        found: dict[str, Node] = {}
        while self._kind is not None:
            name = self._take("rule")
            self._take("is")
            if name in found:
                raise broken(f"rule {name} is there twice")
            found[name] = self._choice()
        return found

    @property
    def _kind(self) -> str | None:
        return self._tokens[self._at][0] if self._at < len(self._tokens) else None

    def _take(self, kind: str) -> str:
        if self._kind != kind:
            found = self._tokens[self._at][1] if self._kind else "the end"
            raise broken(f"expected {kind}, not {found}")
        self._at += 1
        return self._tokens[self._at - 1][1]

    def _choice(self) -> Node:
        parts = [self._row()]
        while self._kind == "|":
            self._take("|")
            parts.append(self._row())
        return parts[0] if len(parts) == 1 else Choice(tuple(parts))

    def _row(self) -> Node:
        parts: list[Node] = []
        while self._kind in ("name", "text", "class", "(", "."):
            part = self._part()
            while self._kind in _REPEATS:
                part = Repeat(part, "".join(self._take(self._kind or "").split()))
            parts.append(part)
        return parts[0] if len(parts) == 1 else Row(tuple(parts))

    def _part(self) -> Node:
        kind = self._kind or ""
        token = self._take(kind)
        if kind == "name":
            return Name(token)
        if kind == "text":
            return Row(tuple(Regex(_escaped(c)) for c in _unescape(token[1:-1])))
        if kind == "class":
            return Regex(_class(token))
        if kind == ".":
            return Regex(r"(?s:.)")
        group = self._choice()
        self._take(")")
        return group


def names(node: Node) -> list[str]:
    """The rules that a node names, as often as it does."""
    if isinstance(node, Name):
        return [node.name]
    if isinstance(node, Repeat):
        return names(node.part)
    if isinstance(node, (Row, Choice)):
        return [name for part in node.parts for name in names(part)]
    return []


def _tokenize(text: str) -> list[tuple[str, str]]:
    tokens, at = [], 0
    while at < len(text):
        match = _TOKENS.match(text, at)
        if match is None:
            raise broken(f"nothing begins with {text[at : at + 20]!r}")
        kind = str(match.lastgroup)
        if kind != "space":
            tokens.append((match[0] if kind == "mark" else kind, match[0]))
        at = match.end()
    return tokens


def _unescape(text: str) -> str:
    def one(match: re.Match[str]) -> str:
        code = match[1] or match[2] or match[3]
        if code is None:
            return _PLAIN.get(match[4], match[4])
        if int(code, 16) > 0x10FFFF:
            raise broken(f"{match[0]} is no character")
        return chr(int(code, 16))

    return _ESCAPE.sub(one, text)


def _class(token: str) -> str:
    """A class of characters as a regular expression's."""
    inner = token[1:-1]
    negated = inner.startswith("^")
    items = _CLASS_ITEM.findall(inner[negated:])
    if not items:
        raise broken("a class has no characters")
    return f"[{'^' if negated else ''}{''.join(map(_class_item, items))}]"


def _class_item(item: tuple[str, str]) -> str:
    first, last = (_unescape(character) for character in item)
    if last and last < first:
        raise broken(f"the range {first}-{last} runs backwards")
    return f"{_escaped(first)}-{_escaped(last)}" if last else _escaped(first)


def _escaped(character: str) -> str:
    if character.isalnum() and character.isascii():
        return character
    return rf"\x{{{ord(character):x}}}"


def broken(why: str) -> RequestError:
    """The refusal of a text that isn't a grammar."""
    return RequestError(
        "guided_decoding_guide is not an EBNF grammar", found=why, param="guided_decoding_guide"
    )
