"""Promise: the proxy knows of each engine of a repository what it can do and what it is called."""

from __future__ import annotations

from pathlib import Path

import pytest
from llmapi_repository import make_model, make_repository
from peft_adapters import by_hand
from test_several_engines import TINY, WITH_LORA, gpu_engine
from tiny_engine import byte_level_tokenizer, make_engine, write_tokenizer

from builder.errors import LaunchError
from server.config import ServedModel
from triton_repo.layout import Part, describe, write_parts, write_repository
from triton_repo.settings.options import RepositoryOptions
from trtbuild.served_models import served_models


def models(repository: Path, **given: object) -> dict[str, ServedModel]:
    served = describe(repository)
    found = served_models(served.path, served.engines, **given)  # type: ignore[arg-type]
    return {model.name: model for model in found}


def test_every_engine_is_a_model_with_its_own_limits_and_abilities(tmp_path: Path) -> None:
    all_logits = {"gather_context_logits": True, "gather_generation_logits": True}
    write_parts(
        [
            Part(engine=gpu_engine(tmp_path / "a", max_seq_len=128, **all_logits), name="small"),
            Part(
                engine=gpu_engine(tmp_path / "b", max_beam_width=4),
                name="large",
                options=RepositoryOptions(guided_decoding_backend="none"),
            ),
        ],
        tmp_path / "repo",
    )
    found = models(tmp_path / "repo")
    small, large = found["small"], found["large"]
    assert (small.triton_model, large.triton_model) == ("small_tensorrt_llm", "large_tensorrt_llm")
    assert (small.max_seq_len, small.max_input_len, large.max_beam_width) == (128, 255, 4)
    assert (small.guided, large.guided) == (True, False)
    assert (small.context_logits, small.generation_logits) == (True, True)
    assert (large.context_logits, large.generation_logits) == (False, False)
    assert (small.vocab_size, small.tokens_per_block, small.kind) == (320, 32, "tensorrt_llm")
    assert (large.tokenizer_dir / "tokenizer.json").is_file()


def test_a_model_of_the_llm_api_has_its_tensors_and_adapters(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "tokenizer", byte_level_tokenizer())
    model = make_model(tmp_path / "model", tmp_path / "tokenizer")
    [served] = models(make_repository(model, tmp_path)).values()
    assert (served.kind, served.guided, served.max_beam_width) == ("llmapi", True, 2)
    assert dict(served.adapters) == {"shout": 1, "whisper": 2}


def test_aliases_name_models_and_adapters_and_settings_are_for_all(tmp_path: Path) -> None:
    linear = "model.layers.0.self_attn.o_proj"
    poet = by_hand(tmp_path / "poet", {linear: (8, 8)}, target_modules=["o_proj"])
    engine = gpu_engine(tmp_path / "engine", model=TINY, **WITH_LORA)
    write_repository(engine, tmp_path / "repo", name="llama", adapters={"poet": poet})
    aliases = {"gpt-4o": "llama", "bard": "poet", "gpt-4": "gpt-4o"}
    [model] = models(
        tmp_path / "repo", aliases=aliases, settings={"tool_parser": "hermes"}
    ).values()
    assert model.aliases == ("gpt-4o", "gpt-4")
    assert dict(model.adapters) == {"poet": 1, "bard": 1}
    assert model.tool_parser == "hermes"


@pytest.mark.parametrize(
    ("aliases", "says"),
    [({"gpt": "nothing"}, "only tiny"), ({"tiny": "tiny"}, "one name; found tiny")],
)
def test_an_alias_of_nothing_or_of_two_things_is_refused(
    tmp_path: Path, aliases: dict[str, str], says: str
) -> None:
    write_repository(make_engine(tmp_path / "engine"), tmp_path / "repo")
    with pytest.raises(LaunchError, match=says):
        models(tmp_path / "repo", aliases=aliases)
