from __future__ import annotations

from pathlib import Path

import pytest
from small_tokenizers import byte_level, write_folder

from server.config import ServedModel
from server.errors import InvalidRequestError
from server.protocol.openai_chat import parse
from server.text_model import TextModel


async def refused(folder: Path, template: str | None) -> InvalidRequestError:
    write_folder(folder, byte_level(), template=template)
    model = TextModel(ServedModel(name="m", tokenizer_dir=folder, max_seq_len=64), offload_chars=99)
    request = parse(b'{"model": "m", "messages": [{"role": "user", "content": "hi"}]}')
    with pytest.raises(InvalidRequestError) as caught:
        await model.requests(request, "id")
    return caught.value


async def test_a_model_without_a_chat_template_points_to_completions(tmp_path: Path) -> None:
    error = await refused(tmp_path, None)
    assert error.do == "use /v1/completions"
    assert error.param == "messages"


async def test_a_templates_complaint_is_the_clients_to_read(tmp_path: Path) -> None:
    error = await refused(tmp_path, "{{ raise_exception('roles must alternate') }}")
    assert "roles must alternate" in str(error)
    assert error.do is None
