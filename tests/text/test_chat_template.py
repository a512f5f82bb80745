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
    for template, found in (("one", "one"), (named, "default"), (named[:1], "rag")):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
        assert TokenizerFolder(tmp_path).chat_template().render(USER) == found
    (tmp_path / "chat_template.jinja").write_text("file")
    assert TokenizerFolder(tmp_path).chat_template().render(USER) == "file"


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
