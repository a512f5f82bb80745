"""EBNF rules turned into llguidance's Lark.

llguidance reads tokens (longest match) before it parses. So whatever is not recursive becomes one
token, in which every reading counts: a grammar without recursion is followed exactly. In a
recursive one a token takes all that it can, which differs from xgrammar only where a token's end
could also be the beginning of what follows it.
"""

from __future__ import annotations

from contextlib import suppress
from graphlib import CycleError, TopologicalSorter
from itertools import groupby

from triton_repo.executor.guide.ebnf import (
    Choice,
    Name,
    Node,
    Regex,
    Repeat,
    Row,
    broken,
    names,
    read,
)


def to_lark(text: str) -> str:
    """An EBNF grammar in llguidance's Lark. Raises RequestError for what isn't one."""
    rules = read(text)
    try:
        return _Writer(rules).lark()
    except RecursionError:
        raise broken("its groups are nested too deep") from None


class _Writer:
    """Writes rules that recurse as rules, and the runs between them as tokens."""

    def __init__(self, rules: dict[str, Node]) -> None:
        self._rules = rules
        self._number = {name: index for index, name in enumerate(rules)}
        self._recursive = _recursive(rules)
        self._tokens: dict[str, str] = {}

    def lark(self) -> str:
        lines = [
            f"r{self._number[name]}: {self._rule(node)}"
            if name in self._recursive
            else f"R{self._number[name]}: {self._token(node)}"
            for name, node in self._rules.items()
        ]
        lines += [f"{name}: {source}" for source, name in self._tokens.items()]
        return "\n".join(["%llguidance {}", f"start: {self._rule(Name('root'))}", *lines])

    def _regular(self, node: Node) -> bool:
        return not any(name in self._recursive for name in names(node))

    def _rule(self, node: Node) -> str:
        if isinstance(node, Name):
            letter = "r" if node.name in self._recursive else "R"
            return f"{letter}{self._number[node.name]}"
        if self._regular(node):
            source = self._token(node)
            return self._tokens.setdefault(source, f"T{len(self._tokens)}")
        if isinstance(node, Choice):
            return "(" + " | ".join(map(self._rule, node.parts)) + ")"
        if isinstance(node, Repeat):
            return f"({self._rule(node.part)}){node.times}"
        return " ".join(self._rule(part) for part in self._runs(_parts(node)))

    def _runs(self, parts: tuple[Node, ...]) -> list[Node]:
        """The parts of a row, with neighbours that don't recurse taken together."""
        runs: list[Node] = []
        for regular, neighbours in groupby(parts, key=self._regular):
            together = tuple(neighbours)
            runs += [Row(together)] if regular else together
        return runs

    def _token(self, node: Node) -> str:
        if isinstance(node, Regex):
            return f"/{node.source}/"
        if isinstance(node, Name):
            return f"R{self._number[node.name]}"
        if isinstance(node, Repeat):
            return f"({self._token(node.part)}){node.times}"
        if isinstance(node, Choice):
            return "(" + " | ".join(map(self._token, node.parts)) + ")"
        sources = [part.source for part in node.parts if isinstance(part, Regex)]
        if len(sources) == len(node.parts):
            return f"/{''.join(sources)}/" if sources else '""'
        return " ".join(map(self._token, node.parts))


def _parts(node: Node) -> tuple[Node, ...]:
    return node.parts if isinstance(node, Row) else (node,)


def _recursive(rules: dict[str, Node]) -> set[str]:
    """The rules that name themselves, or lead to one that does."""
    sorter = TopologicalSorter({name: set(names(node)) for name, node in rules.items()})
    with suppress(CycleError):
        sorter.prepare()
    found = set(rules)
    while ready := sorter.get_ready():
        found -= set(ready)
        sorter.done(*ready)
    return found
