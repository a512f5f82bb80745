"""Promise: a real engine's answer is thought about first, and then has its form."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live_proxy import MODEL, config, live_proxy
from tokenizers import Tokenizer

from builder.convert import ConvertOptions, convert
from builder.limits import LimitOptions
from builder.targets.openvino import build
from server.backend.triton import TritonBackend
from triton_repo.launch.triton import LaunchConfig, Triton
from triton_repo.layout import write_repository
from triton_repo.settings.options import RepositoryOptions

pytestmark = pytest.mark.triton

UNUSED, END = "<|endoftext|>", "</think>"
SCHEMA = {
    "type": "object",
    "properties": {"rain": {"type": "boolean"}, "city": {"enum": ["Rome", "Oslo"]}},
    "required": ["rain", "city"],
    "additionalProperties": False,
}
FORM: Any = {"type": "json_schema", "json_schema": {"name": "weather", "schema": SCHEMA}}
OPENS = "{{ messages[0]['content'] }}<think>\n"


@pytest.fixture(scope="module")
def triton(
    tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Triton]:
    folder = tmp_path_factory.mktemp("thinking")
    convert(tiny_models["llama"], folder / "checkpoint", options=ConvertOptions(dtype="float32"))
    limits = LimitOptions(max_batch_size=4, max_num_tokens=64, kv_cache_gib=0.01)
    build(folder / "checkpoint", folder / "engine", options=limits)
    options = RepositoryOptions(guided_decoding_backend="xgrammar")
    write_repository(folder / "engine", folder / "repo", options=options)
    models = ("tensorrt_llm",)
    launch = LaunchConfig(repository=folder / "repo", log_path=folder / "log", models=models)
    with Triton(launch) as running:
        yield running


@pytest.fixture(scope="module")
def thinker(tiny_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model's tokenizer, with a token that it never needs as the end of its thoughts."""
    folder = tmp_path_factory.mktemp("thinker") / "tokenizer"
    shutil.copytree(tiny_tokenizer, folder)
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace(json.dumps(UNUSED), json.dumps(END)))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {"pad_token": None, "chat_template": OPENS + "{# </think> #}"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize("ended_by", ["budget", "model"])
async def test_thoughts_come_before_json_that_fits_its_schema(
    triton: Triton, thinker: Path, ended_by: str
) -> None:
    tokenizer = Tokenizer.from_file(str(thinker / "tokenizer.json"))
    end = tokenizer.token_to_id(END)
    at_once = {end: 100.0}
    settings = config(
        thinker,
        max_seq_len=512,
        model={"guided": True, "vocab_size": 384},
        triton_addresses=(triton.grpc_address,),
    )
    async with live_proxy(settings, TritonBackend(settings)) as proxy:
        answer = await proxy.openai.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Weather?"}],
            response_format=FORM,
            logit_bias=at_once if ended_by == "model" else {},  # type: ignore[arg-type]
            max_tokens=400,
            seed=1,
            extra_body={"thinking_token_budget": 6, "return_token_ids": True},
        )
    choice = answer.choices[0]
    written = choice.model_extra["token_ids"]
    thought = written[: written.index(end)]
    assert len(thought) == (6 if ended_by == "budget" else 0)
    assert choice.message.model_extra.get("reasoning", "") == tokenizer.decode(thought).strip()
    assert choice.finish_reason == "stop"
    found = json.loads(choice.message.content)
    assert found == {"rain": bool(found["rain"]), "city": found["city"]}
    assert found["city"] in ("Rome", "Oslo")
    assert answer.usage.completion_tokens == len(written)
