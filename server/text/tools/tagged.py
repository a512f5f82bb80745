"""Calls with a tag for each argument: Qwen3-Coder's, Seed's, GLM's, MiniMax M2's, DeepSeek's newer.

    <tool_call>
    <function=weather>
    <parameter=city>
    Rome
    </parameter>
    </function>
    </tool_call>

Values are text; what they mean is up to the function's schema. Strings leave while they are
written, other values when they are whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from server.text.scan.scanner import Scan, Scanner
from server.text.tools import section, strings
from server.text.tools.format import Functions, Reader
from server.text.tools.schema_values import as_json, is_string, said
from server.text.tools.word import MAX_NAME_CHARS, word

_MAX_VALUE_CHARS = 1 << 24


@dataclass(frozen=True, kw_only=True, slots=True)
class Tags:
    """What stands around a call's name, and around its arguments' keys and values.

    A name without a `name_end` is a word. `value` may stand between key and value, and `end` behind
    the last of several calls. With `lines`, values have a line break before and behind them. Where
    there is a `kind_end`, `key_end` begins what says whether the value is a string, true or false.
    A value may be between `quotes`.
    """

    call: str = ""
    name_end: str = ""
    key: str
    key_end: str
    kind_end: str = ""
    value: str = ""
    value_end: str
    call_end: str
    end: str = ""
    lines: bool = False
    quotes: tuple[str, str] | None = None

    @property
    def marks(self) -> tuple[str, ...]:
        """All of them, for a model to which they are tokens of their own."""
        each = (self.call, self.name_end, self.key, self.key_end, self.value, self.value_end)
        return (*each, self.call_end, self.end)


def equals(end: str) -> Tags:
    """Qwen3-Coder's way, which is Seed's with another `end`."""
    return Tags(
        call="<function=",
        name_end=">",
        key="<parameter=",
        key_end=">",
        value_end="</parameter>",
        call_end="</function>",
        end=end,
        lines=True,
    )


GLM = Tags(
    key="<arg_key>",
    key_end="</arg_key>",
    value="<arg_value>",
    value_end="</arg_value>",
    call_end="</tool_call>",
)
MINIMAX = Tags(
    call='<invoke name="',
    name_end='">',
    key='<parameter name="',
    key_end='">',
    value_end="</parameter>",
    call_end="</invoke>",
    end="</minimax:tool_call>",
)
MINICPM = Tags(
    call='<function name="',
    name_end='">',
    key='<param name="',
    key_end='">',
    value_end="</param>",
    call_end="</function>",
    quotes=("<![CDATA[", "]]>"),
)
_HY = ":opensource"
"""What the published model has in all of its marks, which its template adds to them."""
HUNYUAN = Tags(
    call=f"<tool_call{_HY}>",
    name_end=f"<tool_sep{_HY}>",
    key=f"<arg_key{_HY}>",
    key_end=f"</arg_key{_HY}>",
    value=f"<arg_value{_HY}>",
    value_end=f"</arg_value{_HY}>",
    call_end=f"</tool_call{_HY}>",
    end=f"</tool_calls{_HY}>",
)
DSML = "｜DSML｜"


def dsml(section_name: str) -> Tags:
    """DeepSeek's way since V3.2, which names the section of the calls differently since V4."""
    return Tags(
        call=f'<{DSML}invoke name="',
        name_end='">',
        key=f'<{DSML}parameter name="',
        key_end='" string="',
        kind_end='">',
        value_end=f"</{DSML}parameter>",
        call_end=f"</{DSML}invoke>",
        end=f"</{DSML}{section_name}>",
    )


def reader(tags: Tags, *, begun: bool = False) -> Reader:
    """A reader of the calls behind a start, which is the first call's own where it has `begun`."""

    def read(scanner: Scanner, functions: Functions) -> Scan[None]:
        call = partial(_call, scanner, functions, tags)
        if tags.call:
            yield from section.calls(scanner, call, begin=tags.call, end=tags.end, begun=begun)
        else:
            yield from scanner.after_space()
            yield from call()

    return read


def _call(scanner: Scanner, functions: Functions, tags: Tags) -> Scan[bool]:
    """A call from its name on; whether all that came of it is whole, if not its end."""
    if tags.name_end:
        name = ((yield from scanner.within(tags.name_end, MAX_NAME_CHARS)) or "").strip()
    else:
        name = yield from word(scanner)
    properties = functions.get(name, {}).get("properties")
    schemas = properties if isinstance(properties, Mapping) else {}
    if not name:
        return False
    told = _Told(scanner, name)
    while True:
        yield from scanner.after_space()
        ended = yield from scanner.literal(tags.call_end)
        key = None if ended else (yield from _key(scanner, tags))
        if key is None and (ended or told.begun):
            told.end()
            return True
        if key is None:
            return False
        schema = schemas.get(key)
        if tags.kind_end:
            kind = yield from scanner.within(tags.kind_end, MAX_NAME_CHARS)
            schema = said(schema, is_text=kind == "true")
        if not (yield from _value(scanner, tags, key, schema, told)):
            return False


class _Told:
    """A call that begins when its first argument does."""

    def __init__(self, scanner: Scanner, name: str) -> None:
        self._scanner, self._name = scanner, name
        self._before = "{"

    @property
    def begun(self) -> bool:
        return self._before != "{"

    def argument(self, key: str, value: str) -> None:
        """One argument; of a string `value` may be the beginning."""
        if not self.begun:
            self._scanner.call(self._name)
        self._scanner.arguments(f"{self._before}{json.dumps(key, ensure_ascii=False)}: {value}")
        self._before = ", "

    def end(self) -> None:
        if not self.begun:
            self._scanner.call(self._name)
        self._scanner.arguments("}" if self.begun else "{}")


def _key(scanner: Scanner, tags: Tags) -> Scan[str | None]:
    """An argument's name, gone past with what announces its value."""
    if not (yield from scanner.literal(tags.key)):
        return None
    key = yield from scanner.within(tags.key_end, MAX_NAME_CHARS)
    if key is None or not tags.value:
        return key
    yield from scanner.after_space()
    return key if (yield from scanner.literal(tags.value)) else None


def _value(scanner: Scanner, tags: Tags, key: str, schema: Any, told: _Told) -> Scan[bool]:
    """An argument's value; whether its end came."""
    end = tags.value_end
    if tags.quotes and (yield from scanner.literal(tags.quotes[0])):
        end = tags.quotes[1] + end
    if is_string(schema):
        told.argument(key, '"')
        whole = yield from _string(scanner, end, lines=tags.lines)
        scanner.arguments('"' if whole else "")
        return whole
    text = yield from scanner.within(end, _MAX_VALUE_CHARS)
    if text is None:
        return False
    if tags.lines:
        text = text.removeprefix("\n").removesuffix("\n")
    told.argument(key, as_json(text, schema))
    return True


def _string(scanner: Scanner, end: str, *, lines: bool) -> Scan[bool]:
    """A string's text, told as it comes; whether its end came."""
    if not lines:
        return (yield from strings.told(scanner, end))
    if (yield from scanner.peek()) == "\n":
        scanner.at += 1
    return (yield from strings.told(scanner, f"\n{end}", end))
