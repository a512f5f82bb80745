"""The families before Llama convert rightly: as ModelOpt does, and as transformers computes."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import classic_models
import numpy as np
import pytest
from classic_forward import logits
from compare import LAYOUTS, explained, unlike_modelopt
from model_files import write_safetensors

from builder import families
from builder.checkpoint import Checkpoint
from builder.checkpoint_check import check
from builder.convert import ConvertOptions, convert
from builder.dtypes import Array
from builder.errors import LimitError
from builder.safetensors_file import read
from builder.source import open_source

NOT_MODELOPTS = ("gpt_neox", "opt", "opt_after")
"""ModelOpt doesn't know their layers."""

LAYERS = "transformer.layers.*."
DIFFERENCES: dict[str, dict[str, str]] = {
    "gpt_bigcode_heads": {
        LAYERS + "attention.qkv.*": "ModelOpt takes q, k and v for one after the other; "
        "transformers' GPTBigCodeAttention views them head by head without multi_query",
    },
    "gptj": {
        LAYERS
        + "mlp.proj.bias": "every rank adds it before the sum over the ranks (GPTJDecoderLayer "
        "gives RowLinear no tp_group): TensorRT-LLM's convert.py writes zeros on the others, too",
        "lm_head.bias": "ModelOpt doesn't pad it; the class's lm_head has the padded vocabulary",
    },
    "falcon_bias": {
        f"{LAYERS}{name}.bias": "as GPT-J's: FalconDecoderLayer sums attention and MLP at once"
        for name in ("attention.dense", "mlp.proj")
    },
    "falcon_rw": {
        f"{LAYERS}{name}_layernorm.*": "ModelOpt takes the norms in the order of the module's "
        "attributes; TensorRT-LLM's convert.py by their names"
        for name in ("input", "post")
    },
}
"""Model → tensors that are unlike ModelOpt's on purpose, and why."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path) -> Callable[[str], Path]:
    """Gives the folder of a tiny model."""
    root = tmp_path_factory.mktemp("classic")

    def folder(name: str) -> Path:
        made = (root / name).exists()
        return root / name if made else classic_models.save(root / name, name, tiny_tokenizer)

    return folder


@pytest.mark.reference
@pytest.mark.parametrize("name", sorted(classic_models.TINY.keys() - set(NOT_MODELOPTS)))
def test_every_tensor_is_modelopts_or_is_explained(
    model: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    folder, told = model(name), set()
    family = families.of(open_source(folder).config.architecture)
    for number, layout in enumerate(LAYOUTS):
        if family.pipeline or "pp" not in layout:
            unlike = unlike_modelopt(folder, tmp_path / str(number), layout)
            told |= explained(unlike, set(DIFFERENCES.get(name, {})))
    assert told == set(DIFFERENCES.get(name, {}))


def stored(folder: Path) -> dict[str, Array]:
    return {name: tensor.numpy() for name, tensor in read(folder / "model.safetensors").items()}


def converted(folder: Path, out: Path, **options: Any) -> dict[str, Array]:
    convert(folder, out, options=ConvertOptions(dtype="float32", **options))
    check(out)
    return {name: tensor.numpy() for name, tensor in Checkpoint.open(out).tensors().items()}


def alike(tensors: dict[str, Array], wanted: dict[str, Array]) -> None:
    assert tensors.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(tensors[name], array, err_msg=name)


@pytest.mark.reference
def test_gpt_neox_has_its_heads_regrouped(model: Callable[[str], Path], tmp_path: Path) -> None:
    source = {n.removeprefix("gpt_neox."): a for n, a in stored(model("gpt_neox")).items()}
    wanted = {
        "transformer.vocab_embedding.weight": source["embed_in.weight"],
        "lm_head.weight": source["embed_out.weight"],
    }
    for kind in ("weight", "bias"):
        wanted[f"transformer.ln_f.{kind}"] = source[f"final_layer_norm.{kind}"]
        for layer in ("layers.0.", "layers.1."):
            fused = source[f"{layer}attention.query_key_value.{kind}"]
            heads = fused.reshape(4, 3, 16, -1)
            parts = [heads[:, part].reshape(64, -1) for part in range(3)]
            ours = f"transformer.{layer}"
            wanted[f"{ours}attention.qkv.{kind}"] = np.concatenate(parts).reshape(fused.shape)
            for name, origin in (
                ("attention.dense", "attention.dense"),
                ("mlp.fc", "mlp.dense_h_to_4h"),
                ("mlp.proj", "mlp.dense_4h_to_h"),
                ("input_layernorm", "input_layernorm"),
                ("post_attention_layernorm", "post_attention_layernorm"),
            ):
                wanted[f"{ours}{name}.{kind}"] = source[f"{layer}{origin}.{kind}"]
    alike(converted(model("gpt_neox"), tmp_path / "out"), wanted)


@pytest.mark.reference
@pytest.mark.parametrize("name", ["opt", "opt_after"])
def test_opt_loses_the_positions_that_are_never_used(
    model: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    source = {n.removeprefix("model.decoder."): a for n, a in stored(model(name)).items()}
    wanted = {
        "transformer.vocab_embedding.weight": source["embed_tokens.weight"],
        "lm_head.weight": source["embed_tokens.weight"],
        "transformer.position_embedding.weight": source["embed_positions.weight"][2:],
    }
    for kind in ("weight", "bias"):
        if name == "opt":
            wanted[f"transformer.ln_f.{kind}"] = source[f"final_layer_norm.{kind}"]
        for layer in ("layers.0.", "layers.1."):
            ours = f"transformer.{layer}"
            wanted[f"{ours}attention.qkv.{kind}"] = np.concatenate(
                [source[f"{layer}self_attn.{part}_proj.{kind}"] for part in "qkv"]
            )
            for name_, origin in (
                ("attention.dense", "self_attn.out_proj"),
                ("mlp.fc", "fc1"),
                ("mlp.proj", "fc2"),
                ("input_layernorm", "self_attn_layer_norm"),
                ("post_layernorm", "final_layer_norm"),
            ):
                wanted[f"{ours}{name_}.{kind}"] = source[f"{layer}{origin}.{kind}"]
    alike(converted(model(name), tmp_path / "out"), wanted)


@pytest.mark.reference
@pytest.mark.parametrize("name", sorted(classic_models.TINY))
def test_the_ranks_together_compute_what_transformers_does(
    model: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    ids = np.random.default_rng(3).integers(3, 384, size=40).tolist()
    expected = reference_logits(model(name), ids)
    heads = open_source(model(name)).config.num_attention_heads
    for tp in (1, 2, heads):
        out = tmp_path / str(tp)
        options = ConvertOptions(dtype="float32", tp=tp, parallel_embedding=tp == 2)
        convert(model(name), out, options=options)
        error = np.abs(logits(out, ids) - expected).max() / np.abs(expected).max()
        assert error < 1e-5, tp


def reference_logits(folder: Path, ids: list[int]) -> Any:
    import torch
    import transformers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].numpy()


@pytest.mark.reference
def test_only_the_first_rank_adds_a_bias_that_is_summed(
    model: Callable[[str], Path], tmp_path: Path
) -> None:
    source = stored(model("gptj"))["transformer.h.1.mlp.fc_out.bias"]
    converted(model("gptj"), tmp_path / "out", tp=2)
    checkpoint = Checkpoint.open(tmp_path / "out")
    biases = [
        checkpoint.tensors(rank)["transformer.layers.1.mlp.proj.bias"].numpy() for rank in (0, 1)
    ]
    np.testing.assert_array_equal(biases[0], source)
    assert not biases[1].any()


@pytest.mark.reference
@pytest.mark.parametrize(
    ("name", "prefix", "buffers"),
    [
        ("gpt2", "transformer.", ("h.0.attn.bias", "h.1.attn.masked_bias")),
        ("gpt_bigcode", "transformer.", ("h.0.attn.bias",)),
        ("gptj", "transformer.", ("h.0.attn.bias", "h.0.attn.masked_bias")),
        (
            "gpt_neox",
            "gpt_neox.",
            ("layers.0.attention.bias", "layers.1.attention.rotary_emb.inv_freq"),
        ),
        ("opt", "model.", ()),
        ("bloom", "transformer.", ()),
    ],
)
def test_base_models_names_and_buffers_make_no_difference(
    model: Callable[[str], Path], tmp_path: Path, name: str, prefix: str, buffers: tuple[str, ...]
) -> None:
    shutil.copytree(model(name), tmp_path / "model")
    tensors = {n.removeprefix(prefix): a for n, a in stored(model(name)).items()}
    tensors |= {buffer: np.ones((1, 1), np.float32) for buffer in buffers}
    write_safetensors(tmp_path / "model" / "model.safetensors", tensors)
    alike(
        converted(tmp_path / "model", tmp_path / "out"),
        converted(model(name), tmp_path / "reference"),
    )


@pytest.mark.reference
@pytest.mark.parametrize(
    ("name", "kind"), [("falcon_7b", "RefinedWebModel"), ("falcon_40b", "RefinedWeb")]
)
def test_falcons_first_spelling_gives_the_same_checkpoint(
    model: Callable[[str], Path], tmp_path: Path, name: str, kind: str
) -> None:
    shutil.copytree(model(name), tmp_path / "model")
    fields = json.loads((tmp_path / "model" / "config.json").read_text())
    for new, old in (
        ("num_hidden_layers", "n_layer"),
        ("num_attention_heads", "n_head"),
        ("num_kv_heads", "n_head_kv"),
    ):
        fields[old] = fields.pop(new)
    del fields["new_decoder_architecture"]
    fields |= {"model_type": kind, "architectures": ["RWForCausalLM"]}
    (tmp_path / "model" / "config.json").write_text(json.dumps(fields))
    alike(
        converted(tmp_path / "model", tmp_path / "out"),
        converted(model(name), tmp_path / "reference"),
    )
    ours, reference = (Checkpoint.open(tmp_path / out).config for out in ("out", "reference"))
    assert ours == reference


@pytest.mark.reference
@pytest.mark.parametrize("name", ["gptj", "gpt_neox", "opt", "bloom", "mpt"])
def test_classes_without_pipeline_stages_refuse_them(
    model: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    with pytest.raises(LimitError, match="pipeline"):
        convert(model(name), tmp_path / "out", options=ConvertOptions(pp=2))
