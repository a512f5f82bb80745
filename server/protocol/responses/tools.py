"""`tools` and `tool_choice`: the functions that an answer may call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from server.errors import InvalidRequestError, shown
from server.protocol.openai_shared import checked_functions
from server.protocol.request import ToolUse
from server.protocol.responses.parameters import OTHER_TOOLS
from server.protocol.validation import convert, require

_DIRECT: Final = ("direct",)
_Mode = Literal["none", "auto", "required", "named"]


class _Function(msgspec.Struct, forbid_unknown_fields=True, rename={"waits": "async"}):
    """A function that the model is told of; see FunctionParameters for `strict`."""

    type: str
    name: str
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None
    allowed_callers: list[str] | None = None
    waits: bool | None = None
    defer_loading: bool | None = None
    output_schema: dict[str, Any] | None = None


class _Named(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    name: str


class _Allowed(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    mode: str
    tools: list[_Named]


@dataclass(frozen=True, kw_only=True, slots=True)
class Tools:
    """What was given, and what is made of it: `use` is None where nothing may be called."""

    use: ToolUse | None
    given: Sequence[Mapping[str, Any]]
    choice: str | Mapping[str, Any]


def read_tools(
    tools: Sequence[Mapping[str, Any]] | None,
    choice: str | Mapping[str, Any] | None,
    *,
    parallel: bool | None,
) -> Tools:
    """The functions and which of them may be called. Raises InvalidRequestError."""
    functions = [
        (f"tools[{index}]", _function(tool, f"tools[{index}]"))
        for index, tool in enumerate(tools or ())
    ]
    told = checked_functions(functions, "tools")
    by_name = {tool["function"]["name"]: tool for tool in told}
    mode, named, allowed = _chosen(choice, by_name)
    use = None
    if mode != "none" and allowed:
        use = ToolUse(
            tools=[by_name[name] for name in allowed],
            choice=mode,
            named=named,
            parallel=parallel is not False,
        )
    needs_tools = mode in ("none", "auto") or use is not None
    require(
        needs_tools, f"'tool_choice' is '{mode}', and there are no 'tools'", param="tool_choice"
    )
    given = [_told_again(function) for _, function in functions]
    return Tools(use=use, given=given, choice="auto" if choice is None else choice)


def _chosen(
    choice: str | Mapping[str, Any] | None, by_name: Mapping[str, Any]
) -> tuple[_Mode, str | None, list[str]]:
    """ToolUse's `choice` and `named`, and the names of the functions that may be called."""
    where = "tool_choice"
    if choice is None or isinstance(choice, str):
        return _mode(choice or "auto", ("none", "auto", "required"), where), None, list(by_name)
    kind = choice.get("type")
    if kind == "function":
        name = convert(choice, _Named, where).name
        _require_known(name, by_name, where)
        return "named", name, list(by_name)
    if kind == "allowed_tools":
        allowed = convert(choice, _Allowed, where)
        mode = _mode(allowed.mode, ("auto", "required"), f"{where}.mode")
        return mode, None, _allowed(allowed, by_name, where)
    raise _other(kind, where)


def _mode(given: str, known: Sequence[_Mode], where: str) -> _Mode:
    for mode in known:
        if given == mode:
            return mode
    wanted = f"{', '.join(known[:-1])} or {known[-1]}"
    raise InvalidRequestError(f"'{shown(given)}' is not {wanted} - '{where}'", param=where)


def _allowed(allowed: _Allowed, by_name: Mapping[str, Any], where: str) -> list[str]:
    for index, tool in enumerate(allowed.tools):
        param = f"{where}.tools[{index}]"
        if tool.type != "function":
            raise _other(tool.type, param)
        _require_known(tool.name, by_name, param)
    names = {tool.name for tool in allowed.tools}
    return [name for name in by_name if name in names]


def _function(tool: Mapping[str, Any], where: str) -> _Function:
    if tool.get("type") != "function":
        raise _other(tool.get("type"), where)
    given = convert(tool, _Function, where)
    _direct_only(given, where)
    return given


def _told_again(function: _Function) -> dict[str, Any]:
    return {
        "type": "function",
        "name": function.name,
        "description": function.description,
        "parameters": function.parameters,
        "strict": function.strict is not False,
    }


def _direct_only(given: _Function, where: str) -> None:
    param = f"{where}.allowed_callers"
    callers = tuple(given.allowed_callers or _DIRECT)
    require(callers == _DIRECT, f"'{param}' can't be honoured", param=param)
    for name, value in (
        ("async", given.waits),
        ("defer_loading", given.defer_loading),
        ("output_schema", given.output_schema),
    ):
        param = f"{where}.{name}"
        require(not value, f"'{param}' can't be honoured", param=param)


def _require_known(name: str, by_name: Mapping[str, Any], where: str) -> None:
    require(name in by_name, f"'{shown(name)}' is not in 'tools' - '{where}'", param=where)


def _other(kind: object, where: str) -> InvalidRequestError:
    reason = OTHER_TOOLS.get(str(kind), "only 'function' is known")
    complaint = f"a tool of type '{shown(kind)}' can't be used: {reason} - '{where}'"
    return InvalidRequestError(complaint, param=where)
