from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small_tokenizers import CHATML, byte_level, write_folder

from text.chat_template import ChatTemplate
from text.errors import MessagesError, NoTemplateError, UnusableFolderError
from text.tokenizer_folder import TokenizerFolder

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
USER: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "<é>"}}]


def render(source: str, messages: list[dict[str, Any]] = USER, **values: Any) -> str:
    return ChatTemplate(source, SPECIAL).render(messages, **values)


def test_messages_become_the_models_prompt() -> None:
    assert render(CHATML) == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert render(CHATML, add_generation_prompt=False) == "<|im_start|>user\nhi<|im_end|>\n"


def test_templates_find_what_transformers_gives_them() -> None:
    assert render("{{ bos_token }}{{ eos_token }}") == "<s></s>"
    assert render("{{ {'a<': 'é'} | tojson }}") == '{"a<": "é"}'
    assert render("{{ [1] | tojson(indent=1) }}") == "[\n 1\n]"
    assert len(render("{{ strftime_now('%Y') }}")) == 4
    assert render("{% for m in messages %}x{% break %}{% endfor %}") == "x"
    assert render("{% if tools is none %}none{% endif %}") == "none"
    assert render("{% generation %}kept{% endgeneration %}") == "kept"
    assert render("{{ thinking }}", variables={"thinking": False}) == "False"


def test_a_templates_own_complaint_reaches_the_client() -> None:
    with pytest.raises(MessagesError, match="roles must alternate") as caught:
        render("{{ raise_exception('roles must alternate') }}")
    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    "source",
    ["{{ messages[9].role }}", "{{ 1 / 0 }}", "{{ messages + 1 }}", "{{ ''.__class__.mro() }}"],
)
def test_a_template_that_fails_is_refused_not_a_crash(source: str) -> None:
    with pytest.raises(MessagesError):
        render(source)


def test_values_nested_too_deeply_for_a_template_are_refused_not_a_crash() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(MessagesError, match="recursion"):
        ChatTemplate("{{ deep | tojson }}", SPECIAL).render(USER, variables={"deep": deep})


def test_a_model_without_a_template_says_so() -> None:
    with pytest.raises(NoTemplateError):
        ChatTemplate(None, SPECIAL).render(USER)


def test_a_broken_template_stops_the_start() -> None:
    with pytest.raises(UnusableFolderError):
        ChatTemplate("{% if %}", SPECIAL)


def test_developer_is_system_where_the_template_doesnt_know_it() -> None:
    developer = [{"role": "developer", "content": "x"}]
    assert render("{{ messages[0].role }}", developer) == "system"
    assert render("{{ messages[0].role }}{# developer #}", developer) == "developer"


def test_the_final_message_is_continued_not_closed() -> None:
    messages = [*USER, {"role": "assistant", "content": "im "}]
    values: dict[str, Any] = {"add_generation_prompt": False, "continue_final_message": True}
    before = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert render(CHATML, messages, **values) == f"{before}im "
    trimming = CHATML.replace("message['content']", "message['content'] | trim")
    assert render(trimming, messages, **values) == f"{before}im"
    with pytest.raises(MessagesError) as caught:
        render("{{ messages[0].content }}", messages, **values)
    assert caught.value.param == "continue_final_message"


def test_the_template_is_found_wherever_models_keep_it(tmp_path: Path) -> None:
    named = [{"name": "rag", "template": "rag"}, {"name": "default", "template": "default"}]
    write_folder(tmp_path, byte_level())
    (tmp_path / "chat_template.json").write_text('{"chat_template": "processor"}')
    for template, found in (
        (None, "processor"),
        ("one", "one"),
        (named, "default"),
        (named[:1], "rag"),
    ):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
        assert TokenizerFolder(tmp_path).chat_template().render(USER) == found
    (tmp_path / "chat_template.jinja").write_text("file")
    assert TokenizerFolder(tmp_path).chat_template().render(USER) == "file"
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("with tools")
    template = TokenizerFolder(tmp_path).chat_template()
    assert template.render(USER) == "file"
    assert template.render(USER, tools=TOOLS) == "with tools"
    assert template.source == "file\nwith tools"


def test_thoughts_go_where_the_template_looks_for_them() -> None:
    each = "{{ message.thinking }}{{ message.tool_calls | length }}|"
    source = f"{{% for message in messages %}}{each}{{% endfor %}}"
    thought = {"role": "assistant", "content": "", "reasoning_content": "Hm.", "tool_calls": [CALL]}
    assert render(source, [*USER, thought, {**thought, "content": "I look."}]) == "0|Hm.1|1|"


def test_tools_and_documents_are_told_of_where_there_are_any() -> None:
    source = "{{ tools | map(attribute='function.name') | join }}{{ documents[0].text }}"
    assert render(source, tools=TOOLS, documents=[{"text": " about"}]) == "weather about"
    assert render("{{ tools is none and documents is none }}") == "True"


@pytest.mark.parametrize(
    ("source", "mentioned"),
    [
        ("{% if tools %}{% endif %}", True),
        ("{% if tools is not defined %}{% set tools = none %}{% endif %}{{ tools }}", True),
        ("{% macro told() %}{{ tools }}{% endmacro %}{{ told() }}", True),
        ("{# tools #}the tools {{ 'tools' }}{{ messages[0].tools }}", False),
        ("{% set tools = [] %}{{ tools }}", False),
    ],
)
def test_a_template_mentions_the_variables_that_it_reads(source: str, mentioned: bool) -> None:
    assert ChatTemplate(source, SPECIAL).mentions("tools") is mentioned
    named = {"default": "", "tool_use": source}
    assert ChatTemplate(named, SPECIAL).mentions("tools") is mentioned


CALL = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}


def called(arguments: Any) -> list[dict[str, Any]]:
    call = {**CALL, "function": {"name": "weather", "arguments": arguments}}
    return [*USER, {"role": "assistant", "content": "", "tool_calls": [call]}]


OF_CALL = "messages[1].tool_calls[0].function.arguments"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (f"{{{{ {OF_CALL}.city }}}}", "Köln"),
        (f"{{{{ {OF_CALL} | tojson }}}}", '{"city": "Köln", "days": 2}'),
        (f"{{% for k, v in {OF_CALL} | items %}}{{{{ k }}}}={{{{ v }}}};{{% endfor %}}",
         "city=Köln;days=2;"),
        (f"{{% for k in {OF_CALL} %}}{{{{ k }}}};{{% endfor %}}", "city;days;"),
        (f"{{{{ {OF_CALL} is mapping and {OF_CALL} is not string }}}}", "True"),
        (f"{{{{ {OF_CALL} }}}}", '{"city":"Köln","days": 2}'),
        (f"{{{{ 'a' + {OF_CALL} + 'b' ~ {OF_CALL} }}}}",
         'a{"city":"Köln","days": 2}b{"city":"Köln","days": 2}'),
    ],
)  # fmt: skip
def test_arguments_are_an_object_or_json_text_as_the_template_wants(
    source: str, expected: str
) -> None:
    assert render(source, called('{"city":"Köln","days": 2}')) == expected


@pytest.mark.parametrize("arguments", ["", "{}", {}])
def test_no_arguments_are_an_empty_object(arguments: Any) -> None:
    assert render(f"{{{{ {OF_CALL} | tojson }}}}", called(arguments)) == "{}"


@pytest.mark.parametrize("arguments", ["[1]", '{"a": tru', "[" * 100_000, None])
def test_arguments_that_are_no_object_stay_what_they_are(arguments: Any) -> None:
    assert render(f"{{{{ {OF_CALL} }}}}", called(arguments)) == str(arguments)


def test_text_becomes_parts_where_a_template_shows_only_these() -> None:
    parts = "{% for part in messages[0].content %}{{ part.text }}{% endfor %}"
    assert render(parts) == "hi"
    assert render(f"{{% if messages[0].content is string %}}text{{% else %}}{parts}{{% endif %}}")


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'a' * 2**40 }}",
        "{{ [0] * 2**40 }}",
        "{{ 2 ** (2 ** 40) }}",
        "{% for i in range(2**40) %}a{% endfor %}",
        "{% for i in range(0, 0 - 2**70, 0 - 1) %}a{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% set a = 'a' * 2**20 %}{% for i in range(9999) %}{{ a }}{% endfor %}",
    ],
)
def test_a_template_that_makes_too_much_is_refused(source: str) -> None:
    with pytest.raises(MessagesError):
        render(source)


@pytest.mark.reference
@pytest.mark.parametrize("continued", [False, True])
def test_prompts_are_those_of_transformers(tmp_path: Path, continued: bool) -> None:
    transformers = pytest.importorskip("transformers")
    folder = write_folder(tmp_path, byte_level(), template=f"{{{{ bos_token }}}}{CHATML}")
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    messages = [
        {"role": "system", "content": "Be brief <now> & 'then'."},
        {"role": "user", "content": " Köln? "},
        {"role": "assistant", "content": "Yes: "},
    ]
    expected = tokenizer.apply_chat_template(
        messages,
        tokenize=False,
        add_generation_prompt=not continued,
        continue_final_message=continued,
    )
    rendered = (
        TokenizerFolder(folder)
        .chat_template()
        .render(messages, add_generation_prompt=not continued, continue_final_message=continued)
    )
    assert rendered == expected


WITH_TOOLS = {
    "hermes": """{%- if tools %}<|im_start|>system
{{ messages[0].content if messages[0].role == 'system' else 'You can call functions.' }}
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}Answer with <tool_call>{"name": …, "arguments": …}</tool_call><|im_end|>
{% endif %}
{%- for message in messages %}
{%- if message.tool_calls %}<|im_start|>assistant{% for call in message.tool_calls %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% else %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and not enable_thinking %}<think>

</think>

{% endif %}{% endif %}""",
    "mistral": """{{- bos_token }}
{%- for message in messages %}
{%- if message.role == 'user' %}
{%- if tools is not none and loop.last %}
{{- '[AVAILABLE_TOOLS] ' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}
{%- endif %}
{{- '[INST]' + message.content + '[/INST]' }}
{%- elif message.tool_calls is defined %}
{{- '[TOOL_CALLS][' }}
{%- for call in message.tool_calls %}
{%- if call.id | length != 9 %}{{ raise_exception('ids are of 9 characters') }}{% endif %}
{%- set out = call.function | tojson %}
{{- out[:-1] + ', "id": "' + call.id + '"}' + (']' if loop.last else ', ') }}
{%- endfor %}
{{- eos_token }}
{%- elif message.role == 'tool' %}
{{- '[TOOL_RESULTS]' ~ {'content': message.content, 'call_id': message.tool_call_id} | tojson }}
{%- else %}
{{- message.content + eos_token }}
{%- endif %}
{%- endfor %}""",
    "tagged": """{%- macro value(it) %}{{ it | tojson if it is mapping or it is iterable and
it is not string else it | string }}{% endmacro %}
{%- set ns = namespace(last='') %}
{%- for message in messages %}
{%- set ns.last = message.role %}
{{- '<' + message.role + '>' + (message.content or '') }}
{%- for call in message.tool_calls or [] %}
<tool_call>
<function={{ call.function.name }}>
{% for key, it in call.function.arguments | items %}<parameter={{ key }}>
{{ value(it) }}
</parameter>
{% endfor %}</function>
</tool_call>{% endfor %}
{%- endfor %}{{ ns.last ~ (tools | length if tools else '') }}""",
}
"""Our own, in the way of published ones: what they use of Jinja, and how they write calls."""


@pytest.mark.reference
@pytest.mark.parametrize("source", WITH_TOOLS.values(), ids=WITH_TOOLS)
@pytest.mark.parametrize("variables", [{}, {"enable_thinking": False}])
def test_tools_and_their_calls_are_rendered_as_by_transformers(
    tmp_path: Path, source: str, variables: dict[str, Any]
) -> None:
    transformers = pytest.importorskip("transformers")
    folder = write_folder(tmp_path, byte_level(), template=source)
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)

    def messages(arguments: Any) -> list[dict[str, Any]]:
        call = {"id": "a1b2c3d4e", "function": {"name": "weather", "arguments": arguments}}
        return [
            {"role": "user", "content": "Weather & 'more'?"},
            {"role": "assistant", "content": "", "tool_calls": [call, call]},
            {"role": "tool", "tool_call_id": "a1b2c3d4e", "content": '{"sun": true}'},
            {"role": "user", "content": "Köln?"},
        ]

    arguments = {"city": "Köln <b>", "options": {"days": [1, 2]}, "exact": True}
    expected = tokenizer.apply_chat_template(
        messages(arguments), tools=TOOLS, tokenize=False, add_generation_prompt=True, **variables
    )
    rendered = (
        TokenizerFolder(folder)
        .chat_template()
        .render(messages(json.dumps(arguments)), tools=TOOLS, variables=variables)
    )
    assert rendered == expected
