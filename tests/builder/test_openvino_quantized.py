"""Promise: the graph of a quantized checkpoint computes with the numbers that the checkpoint has.

Weights alone are compared with transformers' model on the dequantized matrices; inputs in steps
with ModelOpt's fake-quantized model, which is what the checkpoint was exported from.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from int4_files import write_folder
from model_files import write_safetensors
from openvino_logits import LIMITS, all_logits, relative_error

from builder.checkpoint import Checkpoint
from builder.convert import ConvertOptions, convert
from builder.dequantize import dequantized
from builder.dtypes import Array
from builder.errors import ArtifactError
from builder.quantized_shapes import is_linear
from builder.targets.openvino import MODEL_FILES, build

TOLERANCES = {
    "llama-fp8": 0.01,
    "qwen3-fp8": 0.02,
    "llama-int8_sq": 0.06,
    "llama-int4_awq": 0.08,
    "llama-w4a8_awq": 0.18,
    "mixtral-fp8": 0.07,
}
"""Case → root mean square of the difference, in parts of the logits'. ModelOpt's export rounds the
inputs' scales to bfloat16, and of 4 bits takes some codes differently (the weights differ by
0.8 %); the inputs of a mixture's experts share a scale only in the checkpoint."""
IDS = np.random.default_rng(3).integers(3, 384, size=40).tolist()


class Exported:
    """A model that ModelOpt quantized, its checkpoint, and its logits in float32."""

    def __init__(self, root: Path, case: str) -> None:
        import modelopt_quantized as modelopt

        name, config = case.split("-")
        self.plain = logits(modelopt._random(name))
        model = modelopt.quantize(name, config=config, fp8_kv_cache=False)
        self.checkpoint = modelopt.export(model, root / "checkpoint")
        self.logits = logits(model)


def logits(model: Any) -> Array:
    """In float32, positions too, which a model in bfloat16 has rounded."""
    import torch

    if rotary := getattr(model.model, "rotary_emb", None):
        rotary.inv_freq, _ = rotary.rope_init_fn(model.config, torch.device("cpu"))
    with torch.no_grad():
        found: Array = model.float()(torch.tensor([IDS])).logits[0].numpy()
    return found


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    made: dict[str, Exported] = {}

    def get(case: str) -> Exported:
        if case not in made:
            made[case] = Exported(tmp_path_factory.mktemp(case), case)
        return made[case]

    return get


def served(checkpoint: Path, out: Path) -> Array:
    """The logits of the engine that is built."""
    build(checkpoint, out, options=LIMITS)
    found: Array = all_logits(out, IDS, len(IDS))
    return found


def exact(checkpoint: Path, out: Path) -> Array:
    """The logits of the graph that rounds all that a GPU rounds."""
    import openvino

    from builder.targets.openvino_graph import build_graph

    build(checkpoint, out, options=LIMITS)
    source = Checkpoint.open(checkpoint)
    tensors = source.tensors()
    openvino.save_model(
        build_graph(source.config, tensors, exact=True),
        out / MODEL_FILES[0],
        compress_to_fp16=False,
    )
    found: Array = all_logits(out, IDS, len(IDS))
    return found


Step = Callable[[Any, float], Any]


def llama(checkpoint: Path, step: Step | None = None) -> Array:
    """The logits of transformers' Llama with the checkpoint's dequantized matrices.

    `step` is what becomes of inputs that have a scale.
    """
    import torch
    import transformers

    source = Checkpoint.open(checkpoint)
    config, tensors = source.config, source.tensors()
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            **{
                name: config[name]
                for name in (
                    "vocab_size",
                    "hidden_size",
                    "intermediate_size",
                    "num_hidden_layers",
                    "num_attention_heads",
                    "num_key_value_heads",
                    "max_position_embeddings",
                )
            },
            rms_norm_eps=config["norm_epsilon"],
            rope_theta=config["rotary_base"],
            tie_word_embeddings=False,
        )
    ).eval()
    heads, groups, size = (
        config[name] for name in ("num_attention_heads", "num_key_value_heads", "head_size")
    )
    state = {
        "model.embed_tokens.weight": tensors["transformer.vocab_embedding.weight"].numpy(),
        "model.norm.weight": tensors["transformer.ln_f.weight"].numpy(),
        "lm_head.weight": tensors["lm_head.weight"].numpy(),
    }
    hooks: dict[str, str] = {}
    for layer in range(config["num_hidden_layers"]):
        ours, theirs = f"transformer.layers.{layer}.", f"model.layers.{layer}."
        for mine, other in (("input_layernorm", "input"), ("post_layernorm", "post_attention")):
            name = f"{theirs}{other.removesuffix('_layernorm')}_layernorm.weight"
            state[name] = tensors[f"{ours}{mine}.weight"].numpy()
        modules = {
            "attention.dense": ["self_attn.o_proj"],
            "mlp.fc": ["mlp.gate_proj"],
            "mlp.gate": ["mlp.up_proj"],
            "mlp.proj": ["mlp.down_proj"],
            "attention.qkv": [f"self_attn.{each}_proj" for each in "qkv"],
        }
        for module, names in modules.items():
            matrix = dequantized(config, tensors, ours + module)
            cuts = [heads * size, (heads + groups) * size] if len(names) == 3 else []
            for each, part in zip(names, np.split(matrix, cuts), strict=True):
                state[f"{theirs}{each}.weight"] = part
                hooks[theirs + each] = ours + module
    wide = {name: torch.from_numpy(array.astype(np.float32)) for name, array in state.items()}
    model.load_state_dict(wide)
    for name, module in hooks.items():
        scale = tensors.get(f"{module}.activation_scaling_factor")
        if scale is None or step is None:
            continue
        found = tensors.get(f"{module}.prequant_scaling_factor")
        factor = torch.from_numpy(
            np.ones(1, np.float32) if found is None else found.numpy().astype(np.float32)
        )

        def rounded(
            _: Any, inputs: Any, step: Step = step, factor: Any = factor, scale: Any = scale
        ) -> Any:
            return (step(inputs[0] * factor, float(scale.numpy().reshape(-1)[0])) / factor,)

        model.get_submodule(name).register_forward_pre_hook(rounded)
    return logits(model)


def float8(states: Any, scale: float) -> Any:
    import torch

    return (states / scale).clamp(-448, 448).to(torch.float8_e4m3fn).float() * scale


def int8(states: Any, scale: float) -> Any:
    return (states / scale).round().clamp(-128, 127) * scale


def rms(found: Array, expected: Array) -> float:
    return float(np.sqrt(((found - expected) ** 2).mean() / (expected**2).mean()))


@pytest.fixture
def zeros_checkpoint(tmp_path: Path, tiny_tokenizer: Path) -> Path:
    """W4A16_AWQ with zeros, from AutoAWQ's form."""
    write_folder(tmp_path / "model", tiny_tokenizer, "awq")
    convert(tmp_path / "model", tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.mark.reference
@pytest.mark.parametrize("recipe", ["int8_wo", "int4_wo"])
def test_what_the_loader_would_quantize_is_quantized_alike(
    tiny_folder: Path, tmp_path: Path, recipe: str
) -> None:
    convert(tiny_folder, tmp_path / "checkpoint", options=ConvertOptions(recipe=recipe))
    found = served(tmp_path / "checkpoint", tmp_path / "engine")
    assert relative_error(found, llama(tmp_path / "checkpoint")) < 1e-3
    convert(tiny_folder, tmp_path / "plain")
    assert relative_error(found, llama(tmp_path / "plain")) > 1e-3


@pytest.mark.reference
def test_int4_weights_with_zeros(zeros_checkpoint: Path, tmp_path: Path) -> None:
    expected = llama(zeros_checkpoint)
    assert relative_error(served(zeros_checkpoint, tmp_path / "engine"), expected) < 1e-3


@pytest.mark.reference
@pytest.mark.parametrize("case", ["llama-int4_awq", "llama-fp8"])
def test_weights_alone(exported: Callable[[str], Exported], tmp_path: Path, case: str) -> None:
    checkpoint = exported(case).checkpoint
    assert relative_error(served(checkpoint, tmp_path / "engine"), llama(checkpoint)) < 1e-3


@pytest.mark.reference
@pytest.mark.parametrize("config", ["int8_sq", "fp8", "w4a8_awq"])
def test_inputs_are_rounded_where_that_is_asked_for(
    exported: Callable[[str], Exported], tmp_path: Path, config: str
) -> None:
    checkpoint = exported(f"llama-{config}").checkpoint
    step = int8 if config == "int8_sq" else float8
    expected = llama(checkpoint, step)
    # A number between two steps may fall to either side; one that isn't rounded is far off.
    unrounded = relative_error(llama(checkpoint), expected)
    assert unrounded > 0.1
    assert relative_error(exact(checkpoint, tmp_path / "engine"), expected) < unrounded / 10


@pytest.mark.reference
@pytest.mark.parametrize("case", TOLERANCES)
def test_logits_are_those_of_modelopts_fake_quantized_model(
    exported: Callable[[str], Exported], tmp_path: Path, case: str
) -> None:
    model, tolerance = exported(case), TOLERANCES[case]
    assert rms(model.plain, model.logits) > 3 * tolerance
    assert rms(exact(model.checkpoint, tmp_path / "engine"), model.logits) < tolerance


@pytest.mark.reference
@pytest.mark.parametrize("recipe", ["int8_wo", "int4_wo"])
@pytest.mark.parametrize("name", ["gpt2", "phi3", "mixtral"])
def test_other_linears_are_what_their_dequantized_matrices_are(
    tmp_path: Path, tiny_tokenizer: Path, name: str, recipe: str
) -> None:
    import modelopt_quantized as modelopt

    modelopt.save(name, tmp_path / "model", tiny_tokenizer)
    convert(tmp_path / "model", tmp_path / "checkpoint", options=ConvertOptions(recipe=recipe))
    source = Checkpoint.open(tmp_path / "checkpoint")
    config, tensors = source.config, source.tensors()
    wide = {
        each: dequantized(config, tensors, each.removesuffix(".weight"))
        if is_linear(each, tensor.shape)
        else tensor.numpy().astype(np.float32)
        for each, tensor in tensors.items()
    }
    plain = tmp_path / "plain"
    plain.mkdir()
    write_safetensors(plain / "rank0.safetensors", wide)
    unquantized = {**config, "dtype": "float32", "quantization": {"quant_algo": None}}
    (plain / "config.json").write_text(json.dumps(unquantized))
    expected = served(plain, tmp_path / "plain.engine")
    found = served(tmp_path / "checkpoint", tmp_path / "engine")
    assert relative_error(found, expected) < 1e-3


@pytest.mark.reference
def test_linears_of_mixed_precision_are_told_by_their_tensors(
    exported: Callable[[str], Exported], tmp_path: Path
) -> None:
    plain = exported("llama-fp8").checkpoint
    mixed = tmp_path / "mixed"
    shutil.copytree(plain, mixed)
    block = {"quant_algo": "MIXED_PRECISION", "kv_cache_quant_algo": None}
    config = json.loads((mixed / "config.json").read_text())
    (mixed / "config.json").write_text(json.dumps({**config, "quantization": block}))
    names = Checkpoint.open(plain).tensors()
    layers = {
        name.removesuffix(".weight"): {"quant_algo": "FP8"}
        for name in names
        if name.replace(".weight", ".weights_scaling_factor") in names and name.endswith(".weight")
    }
    (mixed / "quant_cfg.json").write_text(json.dumps({**block, "quantized_layers": layers}))
    expected = served(plain, tmp_path / "plain.engine")
    assert (served(mixed, tmp_path / "engine") == expected).all()


@pytest.mark.reference
@pytest.mark.parametrize(("recipe", "kind"), [("int8_wo", "i8"), ("int4_wo", "i4")])
def test_weights_stay_codes_when_the_engine_runs(
    tiny_folder: Path, tmp_path: Path, recipe: str, kind: str
) -> None:
    import openvino

    convert(tiny_folder, tmp_path / "checkpoint", options=ConvertOptions(recipe=recipe))
    build(tmp_path / "checkpoint", tmp_path / "engine", options=LIMITS)
    compiled = openvino.Core().compile_model(tmp_path / "engine" / MODEL_FILES[0], "CPU")
    linears = [
        node.get_rt_info()["runtimePrecision"].astype(str)
        for node in compiled.get_runtime_model().get_ops()
        if node.get_rt_info()["layerType"].astype(str) == "FullyConnected"
    ]
    # five linears in each of two layers, and the head
    assert sum(each == kind for each in linears) == 10
    assert len(linears) == 11


@pytest.mark.reference
@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("llama-int4_awq", None),
        ("llama-int8_sq", None),
        ("llama-fp8", "in the CPU's float precision, where FP8 has FP8 inputs"),
    ],
)
def test_the_manifest_says_what_is_not_rounded(
    exported: Callable[[str], Exported], tmp_path: Path, case: str, said: str | None
) -> None:
    about = build(exported(case).checkpoint, tmp_path / "engine", options=LIMITS).about
    assert about.get("activations") == said
    assert "kv_cache" not in about


@pytest.mark.reference
def test_the_bytes_of_codes_are_the_checkpoints_and_scales_come_to_them(
    exported: Callable[[str], Exported], tmp_path: Path
) -> None:
    for config in ("int8_sq", "int4_awq", "fp8"):
        checkpoint = exported(f"llama-{config}").checkpoint
        build(checkpoint, tmp_path / config, options=LIMITS)
        model = (tmp_path / config / MODEL_FILES[1]).stat().st_size
        weights = (checkpoint / "rank0.safetensors").stat().st_size
        assert model == pytest.approx(weights, rel=0.05)


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ({"quant_algo": "NVFP4"}, "no way to compute with FP4"),
        ({"quant_algo": "W8A8_SQ_PER_TENSOR_PLUGIN"}, "of quantizations it knows W8A16"),
        ({"quant_algo": "W4A16_AWQ"}, "lacks tensors"),
        ({"quant_algo": "W8A16", "exclude_modules": ["*"]}, "W8A16, linears in no form but plain"),
    ],
)
def test_what_cannot_be_or_contradicts_itself_is_refused(
    tiny_folder: Path, tmp_path: Path, block: dict[str, Any], says: str
) -> None:
    convert(tiny_folder, tmp_path / "checkpoint")
    file = tmp_path / "checkpoint" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "quantization": block}))
    with pytest.raises(ArtifactError, match=says):
        build(tmp_path / "checkpoint", tmp_path / "engine", options=LIMITS)
    assert not (tmp_path / "engine").exists()


def test_the_same_checkpoint_gives_the_same_bytes(zeros_checkpoint: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        build(zeros_checkpoint, tmp_path / name, options=LIMITS)
    for file in MODEL_FILES:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
