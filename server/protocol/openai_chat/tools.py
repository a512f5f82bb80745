"""Which functions the model is told of, and which of them it may or must call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import msgspec

from server.errors import InvalidRequestError, shown
from server.protocol.openai_shared import checked_functions
from server.protocol.request import ToolUse
from server.protocol.validation import Name, require


class Function(msgspec.Struct, forbid_unknown_fields=True):
    """A function that the model is told of; see FunctionParameters for `strict`."""

    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(msgspec.Struct, forbid_unknown_fields=True):
    """A tool; the model's are functions."""

    type: Literal["function"]
    function: Function
    cache_control: Any = None


class NamedFunction(msgspec.Struct, forbid_unknown_fields=True):
    """A function, by its name alone."""

    name: str


class NamedTool(msgspec.Struct, forbid_unknown_fields=True):
    """A tool, by its name alone."""

    type: Literal["function"]
    function: NamedFunction


class AllowedTools(msgspec.Struct, forbid_unknown_fields=True):
    """Some of the tools."""

    mode: Literal["auto", "required"]
    tools: list[NamedTool]


class ToolChoice(msgspec.Struct, forbid_unknown_fields=True):
    """`tool_choice` that names tools: the one to call, or those that may be called."""

    type: Literal["function", "allowed_tools"]
    function: NamedFunction | None = None
    allowed_tools: AllowedTools | None = None


class ToolParameters(Protocol):
    """A request's parameters about tools, the deprecated ones too."""

    tools: list[Tool] | None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None
    parallel_tool_calls: bool | None
    functions: list[Function] | None
    function_call: Literal["none", "auto"] | NamedFunction | None


def tool_use(request: ToolParameters) -> ToolUse | None:
    """The functions that the model is told of and may call, as OpenAI's tools; None for none.

    With the choice `none` it isn't told of any. Raises InvalidRequestError.
    """
    if request.functions is not None or request.function_call is not None:
        return _deprecated(request)
    tools = checked_tools(request.tools)
    choice = request.tool_choice
    if isinstance(choice, ToolChoice):
        return _named(choice, tools, parallel=request.parallel_tool_calls is not False)
    if choice == "required":
        _require_tools(tools, "tool_choice")
    if not tools or choice == "none":
        return None
    parallel = request.parallel_tool_calls is not False
    return ToolUse(tools=tools, choice=choice or "auto", parallel=parallel)


def checked_tools(tools: Sequence[Tool] | None) -> list[dict[str, Any]]:
    """`tools` as templates are told of them. Raises InvalidRequestError naming the place."""
    if tools is None:
        return []
    require(bool(tools), "[] is too short - 'tools'", param="tools")
    functions = [(f"tools[{i}].function", tool.function) for i, tool in enumerate(tools)]
    return checked_functions(functions, "tools")


def _named(choice: ToolChoice, tools: list[dict[str, Any]], *, parallel: bool) -> ToolUse:
    _require_tools(tools, "tool_choice")
    if choice.type == "function":
        param = "tool_choice.function"
        if choice.function is None or choice.allowed_tools is not None:
            raise InvalidRequestError(f"'{param}', and nothing else, is required", param=param)
        name = choice.function.name
        _find(name, tools, f"{param}.name")
        return ToolUse(tools=tools, choice="named", named=name, parallel=parallel)
    param = "tool_choice.allowed_tools"
    allowed = choice.allowed_tools
    if allowed is None or choice.function is not None:
        raise InvalidRequestError(f"'{param}', and nothing else, is required", param=param)
    require(bool(allowed.tools), f"[] is too short - '{param}.tools'", param=f"{param}.tools")
    names = {tool.function.name for tool in allowed.tools}
    for name in sorted(names):
        _find(name, tools, f"{param}.tools")
    some = [tool for tool in tools if tool["function"]["name"] in names]
    return ToolUse(tools=some, choice=allowed.mode, parallel=parallel)


def _deprecated(request: ToolParameters) -> ToolUse | None:
    for name in ("tools", "tool_choice", "parallel_tool_calls"):
        both = f"'{name}' can't be set together with 'functions' or 'function_call'"
        require(getattr(request, name) is None, both, param=name)
    require(request.functions != [], "[] is too short - 'functions'", param="functions")
    given = [(f"functions[{i}]", one) for i, one in enumerate(request.functions or ())]
    tools = checked_functions(given, "functions")
    choice = request.function_call
    if isinstance(choice, NamedFunction):
        _require_tools(tools, "function_call")
        _find(choice.name, tools, "function_call.name")
        return ToolUse(tools=tools, choice="named", named=choice.name, parallel=False)
    if not tools or choice == "none":
        return None
    return ToolUse(tools=tools, choice="auto", parallel=False)


def _require_tools(tools: list[dict[str, Any]], param: str) -> None:
    wanted = "functions" if param == "function_call" else "tools"
    require(bool(tools), f"'{param}' is only allowed when '{wanted}' are specified", param=param)


def _find(name: str, tools: list[dict[str, Any]], param: str) -> None:
    known = any(tool["function"]["name"] == name for tool in tools)
    require(known, f"'{shown(name)}' is none of the functions - '{param}'", param=param)
