"""Values that a model wrote in Python, as JSON; nothing is run."""

from __future__ import annotations

import ast
import json
import warnings

_JSON_NAMES = {"true": True, "false": False, "null": None}
_FAULTS = (SyntaxError, ValueError, TypeError, RecursionError, MemoryError)


def value_as_json(written: str) -> str | None:
    """One literal as JSON; None where it isn't one, or none that JSON has."""
    expression = _parsed(written)
    return None if expression is None else _as_json(expression)


def keywords_as_json(written: str) -> str | None:
    """The arguments `(a=1, b="x")` as a JSON object; None where they are anything else."""
    call = _parsed(f"f{written}")
    if not isinstance(call, ast.Call) or call.args or not all(each.arg for each in call.keywords):
        return None
    names: list[ast.expr | None] = [ast.Constant(each.arg) for each in call.keywords]
    return _as_json(ast.Dict(names, [each.value for each in call.keywords]))


def _parsed(text: str) -> ast.expr | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about a model's backslashes
            return ast.parse(text, mode="eval").body
    except _FAULTS:
        return None


def _as_json(expression: ast.expr) -> str | None:
    try:
        value = ast.literal_eval(_Literals().visit(expression))
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        # half of a surrogate pair can be escaped, and nothing else
        return text if text.isascii() or _is_unicode(text) else json.dumps(value, allow_nan=False)
    except _FAULTS:
        return None


def _is_unicode(text: str) -> bool:
    return text == text.encode(errors="ignore").decode()


class _Literals(ast.NodeTransformer):
    """JSON's names for what Python writes True, False and None."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id not in _JSON_NAMES:
            return node
        return ast.copy_location(ast.Constant(_JSON_NAMES[node.id]), node)
