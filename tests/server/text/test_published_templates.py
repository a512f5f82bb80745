"""Promise: models' published chat templates are rendered as transformers does, and read back.

Seventy of them are in the source distribution of a package, which pip fetches: they aren't ours to
keep here.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import pytest
from split_answers import cut, heard
from transformers.utils.chat_template_utils import render_jinja_template

from server.protocol.request import ChatPrompt, TextRequest, ToolUse
from server.text.parser import ParserChoice, Parsing, parsing_for
from text.chat_template import ChatTemplate

pytestmark = pytest.mark.slow

PACKAGE = "llama-cpp-python"
REQUIREMENT = (
    f"{PACKAGE}==0.3.36 "
    "--hash=sha256:832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e\n"
)
TEMPLATES = "vendor/llama.cpp/models/templates/"
SPECIAL_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": ""}

FORMATS: dict[str, tuple[str | None, str | None]] = {
    "Apertus-8B-Instruct": ("apertus", "apertus"),
    "Apriel-1.6-15b-Thinker-fixed": ("minimax_m1", "apriel"),
    "Bielik-11B-v3.0-Instruct": ("hermes", "think"),
    "ByteDance-Seed-OSS": ("seed_oss", "seed_oss"),
    "Cohere2MoE": ("cohere", "cohere"),
    "CohereForAI-c4ai-command-r-plus-tool_use": (None, None),
    "CohereForAI-c4ai-command-r7b-12-2024-tool_use": ("cohere", "cohere"),
    "GLM-4.6": ("glm45", "think"),
    "GLM-4.7-Flash": ("glm45", "think"),
    "GigaChat3-10B-A1.8B": ("gigachat3", None),
    "GigaChat3.1-10B-A1.8B": ("gigachat3", None),
    "HuggingFaceTB-SmolLM3-3B": ("hermes", "think"),
    "Kimi-K2-Instruct": ("kimi_k2", None),
    "Kimi-K2-Thinking": ("kimi_k2", "think"),
    "Kimi-K3": (None, None),
    "LFM2-8B-A1B": ("lfm2", None),
    "LFM2.5-8B-A1B": ("lfm2", "think"),
    "LFM2.5-Instruct": ("lfm2", "think"),
    "MiMo-VL": ("hermes", None),
    "MiniMax-M1": ("minimax_m1", None),
    "MiniMax-M2": ("minimax_m2", "think"),
    "MiniMax-M3": ("minimax_m3", "minimax_m3"),
    "Mistral-Small-3.2-24B-Instruct-2506": ("mistral", None),
    "NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": ("qwen3_coder", "think"),
    "NVIDIA-Nemotron-Nano-v2": ("nemotron", "think"),
    "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use": ("hermes", None),
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use": ("hermes", None),
    "Qwen-QwQ-32B": ("hermes", "think"),
    "Qwen-Qwen2.5-7B-Instruct": ("hermes", None),
    "Qwen-Qwen3-0.6B": ("hermes", "think"),
    "Qwen3-Coder": ("qwen3_coder", None),
    "Qwen3.5-4B": ("qwen3_coder", "think"),
    "Reka-Edge": ("hermes", "think"),
    "Spark2.5": ("glm45", "think"),
    "StepFun3.5-Flash": ("qwen3_coder", "think"),
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B": ("deepseek_v3", "think"),
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B": ("deepseek_v3", "think"),
    "deepseek-ai-DeepSeek-V3.1": ("deepseek", "think"),
    "deepseek-ai-DeepSeek-V3.2": ("deepseek_v32", "think"),
    "deepseek-ai-DeepSeek-V4": ("deepseek_v4", "think"),
    "deepseek-ai-DeepSeek-V4-Flash-0731": ("deepseek_v4", "think"),
    "fireworks-ai-llama-3-firefunction-v2": ("hermes", None),
    "google-gemma-2-2b-it": ("hermes", None),
    "google-gemma-4-31B-it": ("gemma4", "gemma4"),
    "google-gemma-4-31B-it-interleaved": ("gemma4", "gemma4"),
    "ibm-granite-granite-3.3-2B-Instruct": ("granite", "think"),
    "ibm-granite-granite-4.0": ("hermes", None),
    "ibm-granite-granite-4.1": ("hermes", None),
    "inclusionai-ling-3.0-flash": ("glm45", "think"),
    "llama-cpp-deepseek-r1": ("deepseek_v3", "think"),
    "llama-cpp-rwkv-world": ("hermes", "think"),
    "meetkai-functionary-medium-v3.1": (None, None),
    "meetkai-functionary-medium-v3.2": (None, None),
    "meta-llama-Llama-3.1-8B-Instruct": ("llama3_json", None),
    "meta-llama-Llama-3.2-3B-Instruct": ("llama3_json", None),
    "meta-llama-Llama-3.3-70B-Instruct": ("llama3_json", None),
    "microsoft-Phi-3.5-mini-instruct": ("hermes", None),
    "mistralai-Ministral-3-14B-Reasoning-2512": ("mistral", "mistral"),
    "mistralai-Mistral-Nemo-Instruct-2407": ("mistral", None),
    "moonshotai-Kimi-K2": ("kimi_k2", None),
    "muse-glimmer": (None, None),
    "openai-gpt-oss-120b": ("harmony", "harmony"),
    "openbmb-MiniCPM5-1B": ("minicpm5", "think"),
    "poolside-Laguna-S-2.1": ("glm45", "think"),
    "poolside-Laguna-XS-2.1": ("glm45", "think"),
    "poolside-Laguna-XS.2": ("glm45", "think"),
    "tencent-Hy3": ("hy_v3", "hy_v3"),
    "unsloth-Apriel-1.5": ("minimax_m1", "apriel"),
    "unsloth-mistral-Devstral-Small-2507": ("mistral", None),
    "upstage-Solar-Open-100B": (None, None),
}
"""What each model writes its calls and its thoughts in; None where we know no such format, or where
it has no thoughts, or its template says nothing of them. Hermes' is also that of models which know
no calls: they are told of that one."""

REFUSE = {
    *("Kimi-K2-Instruct", "Kimi-K2-Thinking"),  # `append` is no function of the sandbox
    *("fireworks-ai-llama-3-firefunction-v2", "llama-cpp-deepseek-r1"),
}
"""Templates that transformers doesn't render where there are calls."""
SHOW_NO_CALLS = {"LFM2-8B-A1B", "LFM2.5-Instruct", "ibm-granite-granite-3.3-2B-Instruct"}
SHOW_ONE_CALL = {
    *("GigaChat3-10B-A1.8B", "GigaChat3.1-10B-A1.8B", "openai-gpt-oss-120b"),
    *("meta-llama-Llama-3.1-8B-Instruct", "meta-llama-Llama-3.2-3B-Instruct"),
    "meta-llama-Llama-3.3-70B-Instruct",
}
"""Templates that show one call of a message's, or none."""

PROPERTIES = {
    "city": {"type": "string", "description": "where"},
    "days": {"type": "integer", "description": "how many"},
    "options": {
        "type": "object",
        "description": "more",
        "properties": {"a": {"type": "array", "items": {"type": ["integer", "boolean"]}}},
        "additionalProperties": True,
    },
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"Tells the {name}.",
            "parameters": {"type": "object", "properties": PROPERTIES, "required": ["city"]},
        },
    }
    for name in ("weather", "forecast")
]
CALLS: list[tuple[str, dict[str, Any]]] = [
    ("weather", {"city": 'Zürich & "日本" <b>', "days": 2, "options": {"a": [1, True]}}),
    ("forecast", {"city": "42"}),
]
QUESTION = {"role": "user", "content": "How is it there?"}
Message = dict[str, Any]


def calling(count: int, *, as_text: bool) -> Message:
    calls = [
        {
            "id": f"callnum0{number}",
            "type": "function",
            "function": {
                "name": name,
                "arguments": json.dumps(given, ensure_ascii=False) if as_text else given,
            },
        }
        for number, (name, given) in enumerate(CALLS[:count])
    ]
    return {"role": "assistant", "content": "", "tool_calls": calls}


def conversations(*, as_text: bool) -> Iterator[tuple[list[Message], list[Any] | None]]:
    system = {"role": "system", "content": "Be brief."}
    answer = {"role": "assistant", "content": "Fine."}
    result = {"role": "tool", "tool_call_id": "callnum00", "name": "weather", "content": "Rain."}
    yield [QUESTION], None
    yield [system, QUESTION, answer, QUESTION], None
    yield [QUESTION], TOOLS
    yield [system, QUESTION, calling(1, as_text=as_text), result], TOOLS


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("templates")
    (folder / "requirements.txt").write_text(REQUIREMENT)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", PACKAGE]
    fetch = [*pip, "--dest", str(folder), "--requirement", str(folder / "requirements.txt")]
    subprocess.run(fetch, check=True, timeout=600)
    (archive,) = folder.glob("*.tar.gz")
    found = {}
    with tarfile.open(archive) as files:
        for member in files:
            inside = member.name.partition("/")[2]
            if inside.startswith(TEMPLATES) and inside.endswith(".jinja"):
                text = files.extractfile(member)
                assert text
                found[Path(inside).stem] = text.read().decode()
    archive.unlink()
    return found


@cache
def made(source: str) -> ChatTemplate:
    return ChatTemplate(source, SPECIAL_TOKENS)


def choice(template: ChatTemplate) -> ParserChoice:
    return ParserChoice.of(template.source, (), tools_told=template.tells_tools)


def by_transformers(source: str, place: int) -> str | None:
    """What transformers renders, arguments being objects or else JSON; None where it fails."""
    for as_text in (False, True):
        messages, tools = list(conversations(as_text=as_text))[place]
        try:
            rendered, _ = render_jinja_template(
                conversations=[messages],
                tools=tools,
                chat_template=source,
                add_generation_prompt=True,
                **SPECIAL_TOKENS,
            )
        except (jinja2.TemplateError, TypeError, ValueError, AttributeError):
            continue
        return str(rendered[0])
    return None


def test_every_published_template_has_its_formats(templates: dict[str, str]) -> None:
    found = {}
    for name, source in templates.items():
        known = choice(made(source))
        tools, reasoning = (each.name if each else None for each in (known.tools, known.reasoning))
        found[name] = (tools, reasoning)
    assert found == FORMATS


@pytest.mark.parametrize("place", range(4))
def test_prompts_are_those_of_transformers(templates: dict[str, str], place: int) -> None:
    compared, other = 0, []
    for name, source in templates.items():
        template = made(source)
        messages, tools = list(conversations(as_text=True))[place]
        expected = by_transformers(source, place)
        if expected is None or (tools and not template.tells_tools):
            continue
        compared += 1
        if template.render(messages, tools=tools or ()) != expected:
            other.append(name)
    assert other == []
    assert compared > 50


@pytest.mark.parametrize("name", sorted(FORMATS.keys() - REFUSE - SHOW_NO_CALLS))
def test_calls_that_a_template_writes_are_read_back(templates: dict[str, str], name: str) -> None:
    template = made(templates[name])
    parsers = choice(template)
    for count in (1,) if name in SHOW_ONE_CALL else (1, 2):
        if parsers.tools:
            prompt, answer = written(template, parsers.tools.how_to_call or None, count)
            found = heard(parsing(parsers), cut(answer, [1]), tail=prompt)
            assert [(name, json.loads(text)) for name, text in found.calls] == CALLS[:count]


def written(template: ChatTemplate, how_to_call: str | None, count: int) -> tuple[str, str]:
    """The prompt, and what the template writes of an assistant's calls behind it.

    Where it leaves out the thoughts that the prompt begins, that is behind what both share.
    """
    told: Any = {"tools": TOOLS, "how_to_call": how_to_call}
    prompt = template.render([QUESTION], **told)
    messages = [QUESTION, calling(count, as_text=True)]
    whole = template.render(messages, add_generation_prompt=False, **told)
    place = len(prompt)
    if not whole.startswith(prompt):
        shared = next(at for at, letter in enumerate(whole) if not prompt.startswith(letter, at))
        place = whole.rindex("<", 0, shared + 1)
    return whole[:place], whole[place:]


def parsing(parsers: ParserChoice) -> Parsing:
    use = ToolUse(tools=TOOLS, choice="auto", named=None, parallel=True)
    asked = TextRequest(
        model="m", prompts=[ChatPrompt(messages=[QUESTION])], prompt_param="messages", tools=use
    )
    found = parsing_for(parsers, asked)
    assert found
    return found


def test_no_call_of_a_message_is_lost_where_a_template_shows_one(templates: dict[str, str]) -> None:
    for name in SHOW_ONE_CALL:
        prompt = made(templates[name]).render([QUESTION, calling(2, as_text=True)], tools=TOOLS)
        assert [call for call, _ in CALLS if prompt.rindex(call) > prompt.index("How is it")] == [
            call for call, _ in CALLS
        ]
