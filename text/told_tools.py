"""Functions in the words of a conversation, for models whose chat template knows none.

The functions are told of in the system message; earlier calls and what came of them are text, in
the form that Hermes' models made common. The wording is here and nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from text.tool_arguments import arguments_text

Message = Mapping[str, Any]

_FUNCTIONS = """\
You can call functions. Each of them is described here by a JSON object:
<tools>
{functions}
</tools>"""
TAGGED_CALLS = """\
To call one, write a JSON object with its name and its arguments between these tags:
<tool_call>
{"name": "name of the function", "arguments": {"name of an argument": "its value"}}
</tool_call>
To call several, write one such block after the other. What they return comes between \
<tool_response> and </tool_response>. Where no function helps, answer without a call."""
LISTED_CALLS = """\
To call functions, write a JSON list of objects with their names and arguments, and nothing else:
[{"name": "name of the function", "parameters": {"name of an argument": "its value"}}]
Where no function helps, write JSON in the form that is asked for."""
WRAPPED_CALLS = """\
To call functions, write a JSON object with their names and arguments, and nothing else:
{"tool_calls": [{"name": "name of the function", "parameters": {"name of an argument": \
"its value"}}]}
Where no function helps, write JSON in the form that is asked for."""
"""How to call a function: as text with tags, and as JSON where an answer is that or a form."""

_CALL = '<tool_call>\n{{"name": {name}, "arguments": {arguments}}}\n</tool_call>'
_RESULT = "<tool_response>\n{content}\n</tool_response>"
_SYSTEM = ("system", "developer")
_BETWEEN = "\n\n"


def description(tools: Sequence[Mapping[str, Any]], how_to_call: str) -> str:
    """What a model is told of functions, which are in OpenAI's form."""
    objects = (json.dumps(tool.get("function", tool), ensure_ascii=False) for tool in tools)
    told = _FUNCTIONS.format(functions="\n".join(objects))
    return f"{told}\n{how_to_call}" if how_to_call else told


def with_instructions(messages: Sequence[Message], text: str, *, system: bool) -> list[Message]:
    """The conversation with `text` in its first system message, or in one of its own.

    Where a template has no `system` messages it comes before what the user says first.
    """
    roles = _SYSTEM if system else ("user",)
    for index, message in enumerate(messages):
        if message["role"] in roles:
            parts = (message["content"], text) if system else (text, message["content"])
            told = {**message, "content": _BETWEEN.join(part for part in parts if part)}
            return [*messages[:index], told, *messages[index + 1 :]]
    return [{"role": roles[0], "content": text}, *messages]


def as_text(messages: Sequence[Message]) -> list[Message]:
    """The conversation with its calls, and what functions returned, as messages of text.

    Results that follow each other are one message of the user's, as roles mostly take turns.
    """
    told: list[Message] = []
    after_result = False
    for message in messages:
        is_result = message["role"] == "tool"
        if is_result and after_result:
            told[-1] = {**told[-1], "content": f"{told[-1]['content']}\n{_result(message)}"}
        elif is_result:
            told.append({"role": "user", "content": _result(message)})
        else:
            told.append(_with_calls(message))
        after_result = is_result
    return told


def _result(message: Message) -> str:
    return _RESULT.format(content=message["content"])


def _with_calls(message: Message) -> Message:
    calls = message.get("tool_calls")
    if not calls:
        return message
    texts = [_CALL.format(**_call(call.get("function", call))) for call in calls]
    content = "\n".join(part for part in (message.get("content"), *texts) if part)
    return {**{k: v for k, v in message.items() if k != "tool_calls"}, "content": content}


def _call(function: Mapping[str, Any]) -> dict[str, str]:
    name = json.dumps(function["name"], ensure_ascii=False)
    return {"name": name, "arguments": arguments_text(function.get("arguments"))}
