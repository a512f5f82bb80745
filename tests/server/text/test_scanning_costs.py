"""Promise: a long call costs its length: what is held of it isn't copied for every piece."""

from __future__ import annotations

import pytest
from split_answers import PROPERTIES, cut

from server.text.scan.scanner import Scanner, run
from server.text.tools.table import TOOL_FORMATS

LONG = 'if a < b > c: print(\\"x\\", [{}])\\n' * 2000
FUNCTIONS = {"weather": {"properties": PROPERTIES}}
FORMATS = {each.name: each for each in TOOL_FORMATS}
CALLS = [
    ("hermes", f'{{"name": "weather", "arguments": {{"city": "{LONG}"}}}}'),
    ("hermes", f'{{"arguments": {{"city": "{LONG}"}}, "name": "weather"}}'),
    ("hermes", f'{{"name": "weather", "arguments": "{{\\"city\\": {LONG}}}"}}'),
    ("pythonic", f'[weather(city="{LONG}")]'),
    ("qwen3_coder", f"<function=weather><parameter=city>{LONG}</parameter></function>"),
    ("qwen3_coder", f"<function=weather><parameter=options>{LONG}</parameter></function>"),
    ("glm45", f"weather<arg_key>options</arg_key><arg_value>{LONG}</arg_value></tool_call>"),
    ("minimax_m2", f'<invoke name="weather"><parameter name="options">{LONG}</parameter></invoke>'),
]


@pytest.mark.parametrize(("parser", "call"), CALLS)
def test_a_long_argument_is_copied_a_few_times_at_most(parser: str, call: str) -> None:
    scanner = Scanner()
    reader = FORMATS[parser].read(scanner, FUNCTIONS)
    copied = 0
    for piece in cut(call, [4]):
        before = scanner.text
        scanner.add(piece)
        run(reader)
        copied += len(scanner.text) if scanner.text is not before else 0
    assert scanner.calls_made == 1
    assert copied < 5 * len(call)
