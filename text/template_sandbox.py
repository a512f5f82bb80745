"""Jinja as transformers sets it up for chat templates, in a sandbox that bounds what they make."""

from __future__ import annotations

import json
import time
from collections.abc import Sized
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2.exceptions import SecurityError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_CHARS = 1 << 26
"""Of a rendered prompt: an engine's whole context, many times over."""
_MAX_SECONDS = 20.0
_MAX_BITS = 1 << 16
_MAX_COUNTED = 1_000_000


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment of chat templates."""

    intercepted_binops = frozenset({"*", "**"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, loopcontrols]
        )
        self.filters["tojson"] = _to_json
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = _strftime_now

    def call_binop(
        self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any
    ) -> Any:
        """Multiply, but nothing into gigabytes."""
        if isinstance(left, int) and isinstance(right, int):
            size = left.bit_length() * (right if operator == "**" else 1)
            too_much = size > _MAX_BITS
        else:
            sizes = [len(each) if isinstance(each, Sized) else each for each in (left, right)]
            whole = all(isinstance(size, int) for size in sizes)
            too_much = whole and sizes[0] * sizes[1] > MAX_CHARS
        if too_much:
            raise SecurityError("the chat template makes too much")
        return super().call_binop(context, operator, left, right)


def render(template: jinja2.Template, values: dict[str, Any]) -> str:
    """The template's text. Raises SecurityError when it counts or writes without end."""
    pieces, chars = [], 0
    deadline = time.monotonic() + _MAX_SECONDS
    for piece in template.generate({**values, "range": _Ranges()}):
        pieces.append(piece)
        chars += len(piece)
        if chars > MAX_CHARS or time.monotonic() > deadline:
            raise SecurityError("the chat template writes without end")
    return "".join(pieces)


class _Ranges:
    """Jinja's `range`, with a bound on all of one rendering's together."""

    def __init__(self) -> None:
        self._left = _MAX_COUNTED

    def __call__(self, *limits: int) -> range:
        numbers = range(*limits)
        self._left -= max((numbers.stop - numbers.start) // numbers.step, 0) + 1
        if self._left < 0:
            raise SecurityError("the chat template counts without end")
        return numbers


class _GenerationBlock(jinja2.ext.Extension):
    """`{% generation %}…{% endgeneration %}`, which marks training targets: its content as is."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own declaration

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        """The block's body, without the block."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes for HTML, which models were not trained on."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)
