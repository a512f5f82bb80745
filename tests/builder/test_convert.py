"""A conversion agrees with ModelOpt's, is exact, bounded in memory, and whole or absent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from model_files import FIELDS, huggingface_shapes, write_safetensors

from builder import manifest
from builder.checkpoint import Checkpoint
from builder.checkpoint_check import check
from builder.convert import ConvertOptions, convert
from builder.dtypes import NUMPY, Array
from builder.errors import ArtifactError, LimitError, ModelError, OutputError, UnknownFamilyError

LAYER = "transformer.layers.1."


def layer_1(weights: dict[str, Array], name: str) -> Array:
    return weights[f"model.layers.1.{name}.weight"]


def test_every_tensor_is_the_sources_bytes_under_its_new_name(
    tiny_folder: Path, tiny_weights: dict[str, Array], tmp_path: Path
) -> None:
    convert(tiny_folder, tmp_path / "out")
    tensors = {n: t.numpy() for n, t in Checkpoint.open(tmp_path / "out").tensors().items()}
    qkv = [layer_1(tiny_weights, f"self_attn.{part}_proj") for part in "qkv"]
    wanted = {
        "transformer.vocab_embedding.weight": tiny_weights["model.embed_tokens.weight"],
        "transformer.ln_f.weight": tiny_weights["model.norm.weight"],
        "lm_head.weight": tiny_weights["lm_head.weight"],
        LAYER + "attention.qkv.weight": np.concatenate(qkv),
        LAYER + "attention.dense.weight": layer_1(tiny_weights, "self_attn.o_proj"),
        LAYER + "mlp.fc.weight": layer_1(tiny_weights, "mlp.gate_proj"),
        LAYER + "mlp.gate.weight": layer_1(tiny_weights, "mlp.up_proj"),
        LAYER + "mlp.proj.weight": layer_1(tiny_weights, "mlp.down_proj"),
        LAYER + "input_layernorm.weight": layer_1(tiny_weights, "input_layernorm"),
        LAYER + "post_layernorm.weight": layer_1(tiny_weights, "post_attention_layernorm"),
    }
    assert len(tensors) == 3 + 2 * 7
    for name, array in wanted.items():
        assert tensors[name].shape == array.shape, name
        assert tensors[name].tobytes() == array.tobytes(), name


def test_the_config_is_tensorrt_llms(tiny_folder: Path, tmp_path: Path) -> None:
    convert(tiny_folder, tmp_path / "out")
    config = Checkpoint.open(tmp_path / "out").config
    assert config == {
        "architecture": "LlamaForCausalLM",
        "dtype": "bfloat16",
        "logits_dtype": "float32",
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_size": 16,
        "hidden_size": 64,
        "intermediate_size": 96,
        "vocab_size": 384,
        "max_position_embeddings": 256,
        "hidden_act": "silu",
        "norm_epsilon": 1e-5,
        "position_embedding_type": "rope_gpt_neox",
        "rotary_base": 10000.0,
        "rotary_scaling": None,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "attn_bias": False,
        "mlp_bias": False,
        "residual_mlp": False,
        "use_parallel_embedding": False,
        "embedding_sharding_dim": 0,
        "mapping": {"world_size": 1, "tp_size": 1, "pp_size": 1},
        "quantization": {"quant_algo": None, "kv_cache_quant_algo": None},
    }


def test_a_sliding_window_is_carried_to_the_runtime(tiny_folder: Path, tmp_path: Path) -> None:
    fields = {**FIELDS, "architectures": ["MistralForCausalLM"], "sliding_window": 64}
    (tiny_folder / "config.json").write_text(json.dumps(fields))
    convert(tiny_folder, tmp_path / "out")
    config = Checkpoint.open(tmp_path / "out").config
    assert config["sliding_window"] == 64
    assert config["runtime_defaults"] == {"kv_cache_config": {"max_attention_window": [64]}}


def test_tied_embeddings_are_written_as_lm_head_too(
    tiny_folder: Path, tiny_weights: dict[str, Array], tmp_path: Path
) -> None:
    (tiny_folder / "config.json").write_text(json.dumps({**FIELDS, "tie_word_embeddings": True}))
    for name in ("stored", "dropped"):
        kept = {n: a for n, a in tiny_weights.items() if n != "lm_head.weight" or name == "stored"}
        write_safetensors(tiny_folder / "model.safetensors", kept)
        convert(tiny_folder, tmp_path / name)
        tensors = Checkpoint.open(tmp_path / name).tensors()
        embedding = tiny_weights["model.embed_tokens.weight"].tobytes()
        assert tensors["lm_head.weight"].data() == embedding


@pytest.mark.reference
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_every_tensor_is_the_one_that_modelopt_exports(
    tiny_models: dict[str, Path], tmp_path: Path, dtype: str
) -> None:
    from modelopt_export import export

    for name, folder in tiny_models.items():
        export(folder, tmp_path / name / "reference", dtype)
        convert(folder, tmp_path / name / "ours", options=ConvertOptions(dtype=dtype))
        reference = Checkpoint.open(tmp_path / name / "reference")
        theirs, ours = reference.tensors(), Checkpoint.open(tmp_path / name / "ours").tensors()
        assert set(ours) == set(theirs), name
        for tensor in ours:
            assert ours[tensor].dtype == theirs[tensor].dtype == dtype
            assert ours[tensor].shape == theirs[tensor].shape, (name, tensor)
            assert ours[tensor].data() == theirs[tensor].data(), (name, tensor)
        check(tmp_path / name / "reference")
        check(tmp_path / name / "ours")


def test_auto_takes_float32_as_float16_and_else_the_models_own(
    tiny_folder: Path, tmp_path: Path
) -> None:
    made = [convert(tiny_folder, tmp_path / "own").about["dtype"]]
    (tiny_folder / "config.json").write_text(json.dumps({**FIELDS, "torch_dtype": "float32"}))
    made.append(convert(tiny_folder, tmp_path / "from32").about["dtype"])
    options = ConvertOptions(dtype="float32")
    made.append(convert(tiny_folder, tmp_path / "to32", options=options).about["dtype"])
    assert made == ["bfloat16", "float16", "float32"]
    for name in ("own", "from32", "to32"):
        check(tmp_path / name)


def test_a_cast_rounds_as_numpy_does(
    tiny_folder: Path, tiny_weights: dict[str, Array], tmp_path: Path
) -> None:
    convert(tiny_folder, tmp_path / "out", options=ConvertOptions(dtype="float16"))
    tensor = Checkpoint.open(tmp_path / "out").tensors()[LAYER + "mlp.fc.weight"]
    wanted = layer_1(tiny_weights, "mlp.gate_proj").astype(np.float16)
    assert tensor.data() == wanted.tobytes()


def test_numbers_that_the_dtype_cannot_hold_are_refused(
    tiny_folder: Path, tiny_weights: dict[str, Array], tmp_path: Path
) -> None:
    huge = {**tiny_weights, "model.norm.weight": tiny_weights["model.norm.weight"] + 1e6}
    write_safetensors(tiny_folder / "model.safetensors", huge)
    with pytest.raises(LimitError, match=r"model\.norm\.weight .*--dtype bfloat16"):
        convert(tiny_folder, tmp_path / "out", options=ConvertOptions(dtype="float16"))
    assert not (tmp_path / "out").exists()


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(LimitError, match="dtype must be one of auto, float16"):
        ConvertOptions(dtype="int7")


def test_the_same_input_gives_the_same_bytes(tiny_folder: Path, tmp_path: Path) -> None:
    made = [convert(tiny_folder, tmp_path / name).files for name in ("first", "second")]
    assert made[0] == made[1]


def test_a_finished_checkpoint_is_kept_and_one_of_other_options_replaced(
    tiny_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    written: list[int] = []
    progress = lambda done, total: written.append(done)  # noqa: E731
    first = convert(tiny_folder, out, progress=progress)
    assert written[-1] == first.about["weights_bytes"]
    written.clear()
    assert convert(tiny_folder, out, progress=progress) == first
    assert written == []
    second = convert(tiny_folder, out, options=ConvertOptions(dtype="float32"), progress=progress)
    assert written
    assert second.about["dtype"] == "float32"
    (out / "rank0.safetensors").unlink()
    written.clear()
    convert(tiny_folder, out, options=ConvertOptions(dtype="float32"), progress=progress)
    assert written


def test_the_tokenizer_travels_with_the_checkpoint(
    tiny_folder: Path, tiny_tokenizer: Path, tmp_path: Path
) -> None:
    (tiny_folder / "chat_template.jinja").write_text("{{ messages }}")
    convert(tiny_folder, tmp_path / "out")
    checkpoint = Checkpoint.open(tmp_path / "out")
    assert [file.name for file in checkpoint.tokenizer_files] == [
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "generation_config.json",
    ]
    tokenizer = (tiny_tokenizer / "tokenizer.json").read_bytes()
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == tokenizer


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model.layers.0.mlp.up_proj.weight": None}, "lacks tensors; found .*0.mlp.up_proj"),
        ({"model.layers.0.mlp.router.weight": np.zeros(3)}, "no place .*0.mlp.router.weight"),
        ({"model.norm.weight": np.zeros(65, np.float32)}, r"model.norm.weight \[65\], expected"),
    ],
)
def test_tensors_missing_left_over_or_misshapen_are_named(
    tiny_folder: Path,
    tiny_weights: dict[str, Array],
    tmp_path: Path,
    change: dict[str, Array | None],
    said: str,
) -> None:
    weights = {n: a for n, a in {**tiny_weights, **change}.items() if a is not None}
    write_safetensors(tiny_folder / "model.safetensors", weights)
    with pytest.raises(ModelError, match=said):
        convert(tiny_folder, tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == [tiny_folder]


def test_tensors_that_are_known_to_be_of_no_use_are_left_out(
    tiny_folder: Path, tiny_weights: dict[str, Array], tmp_path: Path
) -> None:
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    weights = {**tiny_weights, name: np.zeros(8, np.float32)}
    write_safetensors(tiny_folder / "model.safetensors", weights)
    convert(tiny_folder, tmp_path / "out")
    check(tmp_path / "out")


def test_an_unknown_family_writes_nothing(tiny_folder: Path, tmp_path: Path) -> None:
    (tiny_folder / "config.json").write_text('{"architectures": ["MambaForCausalLM"]}')
    with pytest.raises(UnknownFamilyError, match="MambaForCausalLM; known are"):
        convert(tiny_folder, tmp_path / "out")
    with pytest.raises(ModelError, match="doesn't exist"):
        convert(tmp_path / "absent", tmp_path / "out")


def test_too_little_room_is_told_before_the_start_with_figures(
    tiny_folder: Path, small_disk: Path
) -> None:
    (small_disk / "full").write_bytes(bytes(1 << 19))
    with pytest.raises(OutputError, match=r"MB free where .* MB are needed; free some space"):
        convert(tiny_folder, small_disk / "out")
    assert [p.name for p in small_disk.iterdir()] == ["full"]


def test_a_disk_that_fills_up_on_the_way_leaves_nothing(
    tiny_folder: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builder.convert._ROOM_FOR_THE_REST_BYTES", 0)

    def fill(done: int, total: int) -> None:
        with (small_disk / "other").open("ab") as file:
            file.write(bytes(200_000))

    with pytest.raises(OutputError, match="No space left on device"):
        convert(tiny_folder, small_disk / "out", progress=fill)
    assert [p.name for p in small_disk.iterdir()] in ([], ["other"])


SLOW = """
import sys, time
from pathlib import Path
from builder.convert import convert

def slowly(done, total):
    print(done, flush=True)
    time.sleep(0.2)

convert(Path(sys.argv[1]), Path(sys.argv[2]), progress=slowly)
"""


def test_a_killed_conversion_leaves_nothing_that_looks_finished(
    tiny_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(tiny_folder), str(out)], stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    assert len(list(tmp_path.glob(".out.*"))) == 1
    with pytest.raises(ArtifactError):
        manifest.read(out, "checkpoint")
    with pytest.raises(ArtifactError):
        Checkpoint.open(out)
    convert(tiny_folder, out)
    check(out)
    assert list(tmp_path.glob(".out.*")) == []


PEAK = """
import resource, sys
from pathlib import Path
from builder.convert import ConvertOptions, convert

def peak():
    text = Path("/proc/self/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0]) * 1024

before = peak()
convert(Path(sys.argv[1]), Path(sys.argv[2]), options=ConvertOptions(dtype=sys.argv[3]))
print(peak() - before)
"""


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_memory_does_not_grow_with_the_model(tiny_folder: Path, tmp_path: Path, dtype: str) -> None:
    fields = {**FIELDS, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 12}
    (tiny_folder / "config.json").write_text(json.dumps(fields))
    zeros = np.zeros(4096 * 1024, NUMPY["bfloat16"])
    write_safetensors(
        tiny_folder / "model.safetensors",
        {n: zeros[: int(np.prod(s))].reshape(s) for n, s in huggingface_shapes(fields).items()},
    )
    size = os.path.getsize(tiny_folder / "model.safetensors")
    command = [sys.executable, "-c", PEAK, str(tiny_folder), str(tmp_path / "out"), dtype]
    grown = int(subprocess.run(command, check=True, capture_output=True).stdout)
    assert size > 300e6
    assert grown < 80e6
