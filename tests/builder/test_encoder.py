"""Promise: an encoder's engine gives the embeddings of its model, or `trtbuild` says why not."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_encoder import FIELDS, MAX_SEQ_LEN, expected_embedding, tensors, write_encoder

from builder import families
from builder.checkpoint import Checkpoint
from builder.checkpoint_check import check
from builder.convert import ConvertOptions, convert
from builder.errors import ArtifactError, LimitError, ModelError, UnknownFamilyError
from builder.limits import LimitOptions
from builder.source import open_source
from builder.source.sentence import embedding
from builder.targets.openvino import EngineOptions, build
from builder.targets.tensorrt_llm.resolve import resolve

Array = NDArray[Any]

ROBERTA = {"model_type": "roberta", "pad_token_id": 1, "max_position_embeddings": 42}
KINDS: dict[str, dict[str, Any]] = {
    "bert": {},
    "bert, cls": {"pooling": "cls"},
    "bert, max, as it is": {"pooling": "max", "normalize": False},
    "bert, gelu_new": {"hidden_act": "gelu_new"},
    "roberta": {**ROBERTA, "architectures": ["RobertaModel"]},
    "xlm-roberta": {**ROBERTA, "architectures": ["XLMRobertaModel"], "model_type": "xlm-roberta"},
    "camembert": {**ROBERTA, "architectures": ["CamembertModel"], "model_type": "camembert"},
}
TEXTS = [[2, 7, 9, 3], [2, 3], [2, *range(4, 40), 3], [2, 11, 3]]


def engine_of(model: Path, folder: Path, dtype: str = "float32", **limits: Any) -> Path:
    convert(model, folder / "checkpoint", options=ConvertOptions(dtype=dtype))
    options = LimitOptions(**{"max_seq_len": 40, **limits})
    build(folder / "checkpoint", folder / "engine", options=options)
    return folder / "engine"


def embed(engine: Path, texts: list[list[int]]) -> Array:
    """All texts in one call, padded with a token that means something."""
    import openvino

    compiled = openvino.Core().compile_model(
        engine / "openvino_model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    rows = np.full((len(texts), max(map(len, texts))), 5, np.int32)
    for row, ids in zip(rows, texts, strict=True):
        row[: len(ids)] = ids
    lengths = np.array([len(ids) for ids in texts], np.int32)
    found: Array = compiled({"input_ids": rows, "input_lengths": lengths})["embedding"]
    return found


def reference(model: Path, pooling: str, normalize: bool) -> Array:
    """transformers' states, pooled and normalized as sentence-transformers' modules do."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        import transformers

        network = transformers.AutoModel.from_pretrained(model, add_pooling_layer=False).eval()
        with torch.no_grad():
            states = [network(torch.tensor([ids])).last_hidden_state[0] for ids in TEXTS]
        ways = {"mean": lambda s: s.mean(0), "cls": lambda s: s[0], "max": lambda s: s.amax(0)}
        pooled = torch.stack([ways[pooling](each) for each in states])
        return (torch.nn.functional.normalize(pooled) if normalize else pooled).numpy()


@pytest.mark.reference
@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_are_those_of_transformers(kind: str, tmp_path: Path) -> None:
    model = write_encoder(tmp_path / "model", **KINDS[kind])
    said = embedding(model, {})
    found = embed(engine_of(model, tmp_path), TEXTS)
    expected = reference(model, said["pooling"], said["normalize"])
    np.testing.assert_allclose(found, expected, atol=2e-6, rtol=1e-5)


@pytest.mark.reference
def test_embeddings_of_a_published_model_are_those_of_transformers(
    minilm: Path, tmp_path: Path
) -> None:
    expected = reference(minilm, "mean", True)
    for dtype, likeness in (("float32", 0.999999), ("auto", 0.9999)):
        found = embed(engine_of(minilm, tmp_path / dtype, dtype), TEXTS)
        assert ((found * expected).sum(1) > likeness).all(), dtype


def test_embeddings_are_those_of_the_papers_formulas(tmp_path: Path) -> None:
    model = write_encoder(tmp_path / "model")
    found = embed(engine_of(model, tmp_path), TEXTS)
    expected = [expected_embedding(FIELDS, ids) for ids in TEXTS]
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_a_checkpoint_has_the_tensors_of_tensorrt_llms_class(tmp_path: Path) -> None:
    model = write_encoder(tmp_path / "model")
    convert(model, tmp_path / "checkpoint", options=ConvertOptions(dtype="float32"))
    check(tmp_path / "checkpoint")
    checkpoint = Checkpoint.open(tmp_path / "checkpoint")
    assert checkpoint.config["architecture"] == "BertModel"
    assert checkpoint.config["is_roberta"] is False
    stored, source = checkpoint.tensors(), tensors(FIELDS)
    at = "encoder.layer.1."
    parts = [source[f"{at}attention.self.{part}.weight"] for part in ("query", "key", "value")]
    np.testing.assert_array_equal(
        stored["layers.1.attention.qkv.weight"].numpy(), np.concatenate(parts)
    )
    for name, origin in (
        ("embedding.vocab_embedding.weight", "embeddings.word_embeddings.weight"),
        ("embedding.token_embedding.weight", "embeddings.token_type_embeddings.weight"),
        ("embedding.embedding_ln.bias", "embeddings.LayerNorm.bias"),
        ("layers.1.input_layernorm.weight", f"{at}attention.output.LayerNorm.weight"),
        ("layers.1.mlp.fc.weight", f"{at}intermediate.dense.weight"),
        ("layers.1.mlp.proj.bias", f"{at}output.dense.bias"),
        ("layers.1.post_layernorm.bias", f"{at}output.LayerNorm.bias"),
    ):
        np.testing.assert_array_equal(stored[name].numpy(), source[origin])


def test_an_engine_has_the_models_own_length_unless_told_otherwise(tmp_path: Path) -> None:
    model = write_encoder(tmp_path / "model")
    for asked, length in ((None, MAX_SEQ_LEN), (40, 40)):
        engine = engine_of(model, tmp_path / str(asked), max_seq_len=asked)
        limits = json.loads((engine / "config.json").read_text())["build_config"]
        assert (limits["max_seq_len"], limits["max_input_len"]) == (length, length)
    with pytest.raises(LimitError, match="at most 40"):
        engine_of(model, tmp_path / "beyond", max_seq_len=41)


def test_robertas_positions_begin_behind_its_pad_id(tmp_path: Path) -> None:
    model = write_encoder(tmp_path / "model", **KINDS["roberta"])
    with pytest.raises(LimitError, match="at most 40"):
        engine_of(model, tmp_path, max_seq_len=41)


def test_a_call_always_has_room_for_the_longest_text(tmp_path: Path) -> None:
    model = write_encoder(tmp_path / "model")
    engine = engine_of(model, tmp_path, max_num_tokens=8, max_batch_size=4)
    assert json.loads((engine / "config.json").read_text())["build_config"]["max_num_tokens"] == 40


@pytest.mark.parametrize(
    ("options", "engine", "named"),
    [
        ({"kv_cache_gib": 1.0}, {}, "--kv-cache-gib"),
        ({}, {"max_beam_width": 2}, "--max-beam-width"),
        ({}, {"max_lora_rank": 8}, "--max-lora-rank"),
    ],
)
def test_what_is_for_decoders_is_refused_by_name(
    options: dict[str, Any], engine: dict[str, Any], named: str, tmp_path: Path
) -> None:
    model = write_encoder(tmp_path / "model")
    convert(model, tmp_path / "checkpoint")
    with pytest.raises(LimitError, match=named):
        build(
            tmp_path / "checkpoint",
            tmp_path / "engine",
            options=LimitOptions(**options),
            engine=EngineOptions(**engine),
        )
    with pytest.raises(LimitError, match="int8_wo"):
        convert(model, tmp_path / "other", options=ConvertOptions(recipe="int8_wo"))
    with pytest.raises(LimitError, match=r"the target tensorrt-llm .*--target openvino"):
        resolve(Checkpoint.open(tmp_path / "checkpoint").config)


def test_an_encoder_that_isnt_known_is_refused_with_those_that_are(tmp_path: Path) -> None:
    model = write_encoder(tmp_path / "model")
    config = {**FIELDS, "architectures": ["ModernBertModel"]}
    (model / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnknownFamilyError, match=r"ModernBertModel.*BertModel, CamembertModel"):
        open_source(model)
    assert all(not families.is_encoder(name) for name in families.elsewhere.ENCODERS)


def change(model: Path, name: str, content: Any) -> None:
    (model / name).write_text(json.dumps(content))


def test_sentence_transformers_files_are_read(tmp_path: Path) -> None:
    model = write_encoder(tmp_path / "model", pooling="max", normalize=False)
    assert embedding(model, {"matryoshka_dimensions": [16, 8]}) == {
        "pooling": "max",
        "normalize": False,
        "max_seq_len": MAX_SEQ_LEN,
        "matryoshka_dimensions": [8, 16],
    }
    assert embedding(model, {"is_matryoshka": True})["matryoshka_dimensions"] == []
    change(model, "1_Pooling/config.json", {"pooling_mode": "cls"})
    assert embedding(model, {})["pooling"] == "cls"
    (model / "modules.json").unlink()
    (model / "sentence_bert_config.json").unlink()
    assert embedding(model, {}) == {
        "pooling": "mean",
        "normalize": True,
        "max_seq_len": None,
        "matryoshka_dimensions": None,
    }


TWO = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}
PROMPT = {"prompts": {"query": "query: "}, "default_prompt_name": "query"}
DENSE = [{"type": f"models.{kind}", "path": kind} for kind in ("Transformer", "Pooling", "Dense")]


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("1_Pooling/config.json", TWO, "cls_token and mean_tokens"),
        ("1_Pooling/config.json", {"pooling_mode": "lasttoken"}, "lasttoken"),
        ("1_Pooling/config.json", {}, "none"),
        ("modules.json", DENSE, "Dense"),
        ("modules.json", [{"type": "models.Transformer", "path": "../.."}], r"\.\./\.\."),
        ("modules.json", {"a": 1}, "not a list of modules"),
        ("sentence_bert_config.json", {"max_seq_length": 0}, "max_seq_length"),
        ("config_sentence_transformers.json", PROMPT, "query: "),
    ],
)
def test_what_embeddings_arent_made_by_here_is_refused(
    name: str, content: Any, complaint: str, tmp_path: Path
) -> None:
    model = write_encoder(tmp_path / "model")
    change(model, name, content)
    with pytest.raises(ModelError, match=complaint):
        open_source(model)


def test_another_pooling_is_another_model(tmp_path: Path) -> None:
    model = write_encoder(tmp_path / "model")
    convert(model, tmp_path / "checkpoint")
    change(model, "1_Pooling/config.json", {"pooling_mode": "cls"})
    convert(model, tmp_path / "checkpoint")
    assert Checkpoint.open(tmp_path / "checkpoint").config["embedding"]["pooling"] == "cls"


def test_nonsense_in_a_checkpoint_is_refused(tmp_path: Path) -> None:
    model = write_encoder(tmp_path / "model")
    convert(model, tmp_path / "checkpoint")
    path = tmp_path / "checkpoint" / "config.json"
    config = json.loads(path.read_text())
    config["embedding"]["pooling"] = "median"
    path.write_text(json.dumps(config))
    with pytest.raises(ArtifactError, match="median"):
        build(tmp_path / "checkpoint", tmp_path / "engine")
