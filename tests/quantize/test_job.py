"""Promise: every recipe goes from a model to whole artifacts and a report, or is refused early."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from quantizing import TEXT, contents, run

from builder import artifact, manifest, safetensors_file
from builder.convert import ConvertOptions
from builder.errors import CorruptFileError, LimitError, ModelError, OutputError
from quantize.job import require_quality
from quantize.model import Memory
from quantize.options import QuantizeOptions
from quantize.recipes import RECIPES

pytestmark = pytest.mark.reference

WITH = {"auto": {"bits_per_weight": 6.5}, "int8_sq": {"alpha": 0.5}}


@pytest.fixture
def model(tiny_models: dict[str, Path], tmp_path: Path) -> Path:
    """A Hugging Face folder of one's own."""
    folder = tmp_path / "llama"
    folder.mkdir()
    for file in tiny_models["llama"].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_gives_a_whole_checkpoint_and_a_report(
    model: Path, tmp_path: Path, recipe: str
) -> None:
    out = tmp_path / "out"
    made = run(model, out, recipe, **WITH.get(recipe, {}))
    assert made.checkpoint is not None
    artifact.verify(out, made.checkpoint)
    config = json.loads((out / "config.json").read_text())
    assert config["quantization"]["quant_algo"] == RECIPES[recipe].quant_algo
    assert made.report == json.loads((out / "report.json").read_text())
    assert made.report["recipe"] == recipe
    assert len(made.report["weight_errors"]) == 2 * 5
    if recipe == "nvfp4":
        assert "CUDA" in made.report["not_measured"]["evaluation"]
    else:
        assert made.report["perplexity"]["source"] > 1
        assert made.report["perplexity"]["quantized"] > 1
    assert "<html" in (out / "report.html").read_text()


def test_the_same_job_gives_the_same_bytes(model: Path, tmp_path: Path) -> None:
    for each in ("a", "b"):
        run(model, tmp_path / each, "int4_awq", kv_cache="fp8")
    first, second = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert first.keys() == second.keys()
    named = {"trtbuild.json", "report.json", "report.html"}
    assert [name for name in first if first[name] != second[name] and name not in named] == []


def test_a_finished_job_is_kept_without_torch_or_modelopt(model: Path, tmp_path: Path) -> None:
    out, hf = tmp_path / "out", tmp_path / "hf"
    run(model, out, "fp8", hf=hf)
    before = {path: path.stat().st_mtime_ns for place in (out, hf) for path in place.iterdir()}
    loaded = in_another_process(model, out, "fp8", hf=str(hf))
    assert not {"torch", "modelopt", "transformers"} & loaded
    after = {path: path.stat().st_mtime_ns for place in (out, hf) for path in place.iterdir()}
    assert before == after


def test_both_forms_come_from_one_calibration(model: Path, tmp_path: Path) -> None:
    out, hf = tmp_path / "out", tmp_path / "hf"
    made = run(model, out, "fp8", hf=hf)
    assert made.huggingface is not None
    assert made.huggingface.kind == "hf_checkpoint"
    artifact.verify(hf, made.huggingface)
    ours, theirs = load_scales(out / "rank0.safetensors"), load_scales(hf / "model.safetensors")
    down = "model.layers.1.mlp.down_proj"
    proj = "transformer.layers.1.mlp.proj"
    assert ours[f"{proj}.activation_scaling_factor"] == theirs[f"{down}.input_scale"]
    assert ours[f"{proj}.weights_scaling_factor"] == theirs[f"{down}.weight_scale"]
    assert (hf / "tokenizer.json").read_bytes() == (model / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("recipe", ["fp8", "int4_awq"])
def test_what_stays_unquantized_has_the_models_dtype_whatever_it_is_calibrated_in(
    model: Path, tmp_path: Path, recipe: str
) -> None:
    found = {}
    for name, cpu_bfloat16 in (("wide", False), ("narrow", True)):
        free = Memory(cpu_bytes=8 << 30, cpu_bfloat16=cpu_bfloat16)
        made = run(model, None, recipe, hf=tmp_path / name, free=free, evaluate=False)
        tensors = safetensors_file.read(tmp_path / name / "model.safetensors")
        found[name] = {each: (tensor.dtype, tensor.shape) for each, tensor in tensors.items()}
        assert made.huggingface is not None
        config = json.loads((tmp_path / name / "config.json").read_text())
        assert config["dtype"] == made.huggingface.about["dtype"] == "float16"
    assert found["wide"] == found["narrow"]
    assert found["wide"]["model.norm.weight"][0] == "float16"


def load_scales(path: Path) -> dict[str, float]:
    """The tensors of one number, by name."""
    from builder.safetensors_file import read

    return {
        name: float(tensor.numpy().reshape(-1)[0])
        for name, tensor in read(path).items()
        if tensor.nbytes == 4
    }


def test_a_kept_calibration_is_written_for_another_layout_without_torch(
    model: Path, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    run(model, tmp_path / "one", "int4_awq", group_size=64, state=state)
    loaded = in_another_process(
        model, tmp_path / "two", "int4_awq", group_size=64, state=str(state), tp=2
    )
    assert not {"torch", "modelopt", "transformers"} & loaded
    one, two = (json.loads((tmp_path / n / "report.json").read_text()) for n in ("one", "two"))
    assert one["perplexity"] == two["perplexity"]
    fresh = ConvertOptions(tp=2)
    run(model, tmp_path / "fresh", "int4_awq", group_size=64, conversion=fresh)
    for rank in ("rank0.safetensors", "rank1.safetensors"):
        assert (tmp_path / "two" / rank).read_bytes() == (tmp_path / "fresh" / rank).read_bytes()


def test_a_state_of_other_settings_is_refused(model: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    run(model, tmp_path / "out", "fp8", state=state, evaluate=False)
    with pytest.raises(OutputError, match=r"another quantization; found \"recipe\": \"fp8\""):
        run(model, tmp_path / "out2", "int8_sq", state=state, evaluate=False)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis.txt").touch()
    with pytest.raises(OutputError, match=r"not a folder of --save-state; found thesis\.txt"):
        run(model, tmp_path / "out2", "fp8", state=tmp_path / "theirs")


@pytest.mark.parametrize("keeps", [True, False])
def test_a_job_killed_while_it_calibrates_leaves_nothing_and_the_next_succeeds(
    model: Path, tmp_path: Path, keeps: bool
) -> None:
    kept = {"state": str(tmp_path / "state")} if keeps else {}
    code = program(model, tmp_path / "out", "fp8", kept, hook="os.write(1, b'calibrating')")
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment()
    ) as process:
        assert process.stdout
        assert process.stdout.read(11) == "calibrating", "it was over before it was stopped"
        process.send_signal(signal.SIGKILL)
    assert {path.name for path in tmp_path.iterdir()} <= {"llama", "text.txt", "state"}
    state = {"state": tmp_path / "state"} if keeps else {}
    made = run(model, tmp_path / "out", "fp8", **state)
    assert made.checkpoint is not None
    run(model, tmp_path / "whole", "fp8")
    for name in ("rank0.safetensors", "config.json"):
        whole = (tmp_path / "whole" / name).read_bytes()
        assert (tmp_path / "out" / name).read_bytes() == whole


def test_a_perplexity_that_grew_too_much_is_told_after_the_report(
    model: Path, tmp_path: Path
) -> None:
    made = run(model, tmp_path / "out", "int4_awq", max_ppl_increase=10.0)
    told = {**made.report, "perplexity": {"source": 10.0, "quantized": 10.5, "increase": 0.05}}
    require_quality(told, 0.06)
    require_quality(told, None)
    with pytest.raises(LimitError, match=r"more than .*2.*found .*5"):
        require_quality(told, 0.02)
    with pytest.raises(LimitError, match="not measured"):
        require_quality(
            {**told, "perplexity": {"increase": None}, "not_measured": {"evaluation": "x"}}, 1
        )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"text": "a"}\n\n{"text": \n', "line 3"),
        ("", "no text"),
        ('{"txt": "a"}\n', "line 1"),
    ],
)
def test_a_bad_calibration_file_is_told_before_the_model_is_loaded(
    model: Path, tmp_path: Path, text: str, says: str
) -> None:
    (tmp_path / "bad.jsonl").write_text(text)
    (model / "model.safetensors").chmod(0o400)
    with pytest.raises((CorruptFileError, LimitError), match=says):
        run(model, tmp_path / "out", "fp8", calib=str(tmp_path / "bad.jsonl"))
    assert not (tmp_path / "out").exists()


def test_too_little_text_is_said_and_used(model: Path, tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "short.txt").write_text(TEXT[:400])
    run(model, tmp_path / "out", "fp8", calib=str(tmp_path / "short.txt"), samples=99, said=said)
    assert any("short.txt has only" in line for line in said)


def test_a_model_without_chat_template_is_quantized(model: Path, tmp_path: Path) -> None:
    config = json.loads((model / "tokenizer_config.json").read_text())
    del config["chat_template"]
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    messages = [{"role": "user", "content": TEXT[:2000]}, {"role": "assistant", "content": "Yes."}]
    (tmp_path / "chat.jsonl").write_text(json.dumps({"messages": messages}) + "\n")
    made = run(model, tmp_path / "out", "fp8", calib=str(tmp_path / "chat.jsonl"))
    assert made.checkpoint is not None


def test_what_memory_cannot_hold_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(LimitError, match="too large to be calibrated here"):
        run(model, tmp_path / "out", "fp8", free=Memory(cpu_bytes=10**8))


@pytest.mark.parametrize(
    ("recipe", "chosen", "says"),
    [
        ("fp8", {"gpu": "A100"}, "A100 can't run fp8"),
        ("w4a8_awq", {"gpu": "H100", "group_size": 64}, "can't run w4a8_awq"),
        ("int8_sq", {"gpu": "B200"}, "B200 can't run int8_sq"),
        ("fp8", {"group_size": 64}, "fp8 has no groups"),
        ("int4_awq", {"group_size": 32}, "groups of 128 or 64"),
        ("fp8", {"kv_cache": "int8", "hf": True}, "no INT8 KV cache"),
        ("int8_wo", {"hf": True}, "no Hugging Face form"),
        ("int4_awq", {"conversion": ConvertOptions(tp=4)}, "can't be divided over 4"),
        ("fp8", {"conversion": ConvertOptions(dtype="float32")}, "float16 or bfloat16"),
        ("nvfp4", {"max_ppl_increase": 0.1}, "can't be measured here"),
        ("auto", {"bits_per_weight": 2.0}, "auto can reach"),
        ("auto", {"conversion": ConvertOptions(pp=2)}, "may differ between pipeline ranks"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_loaded(
    model: Path, tmp_path: Path, recipe: str, chosen: dict[str, Any], says: str
) -> None:
    """The weights aren't there to be loaded: only their header is."""
    weights = model / "model.safetensors"
    size = weights.stat().st_size
    header = weights.read_bytes()[:4096]
    weights.write_bytes(header)
    os.truncate(weights, size)
    hf = tmp_path / "hf" if chosen.pop("hf", False) else None
    with pytest.raises(LimitError, match=says):
        run(model, tmp_path / "out", recipe, hf=hf, **chosen)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "chosen",
    [
        {"recipe": "int3"},
        {"recipe": "fp8", "bits_per_weight": 4.0},
        {"recipe": "int8_wo", "kv_cache": "fp8"},
        {"recipe": "fp8", "evaluate": False, "max_ppl_increase": 0.1},
        {"recipe": "fp8", "samples": 0},
        {"recipe": "fp8", "alpha": 0.5},
        {"recipe": "int8_sq", "alpha": 5.0},
        {"recipe": "int8_wo", "group_size": 64},
    ],
)
def test_options_that_contradict_one_another_are_refused(chosen: dict[str, Any]) -> None:
    with pytest.raises(LimitError):
        QuantizeOptions(**chosen)


def test_a_place_that_cannot_be_written_is_refused_before_a_calibration(
    model: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    heard: list[str] = []
    for places in (
        {"out": tmp_path / "mine"},
        {"out": None, "hf": tmp_path / "mine"},
        {"out": tmp_path / "new", "hf": tmp_path / "new"},
        {"out": tmp_path / "new", "hf": tmp_path / "new" / "hf"},
    ):
        with pytest.raises(OutputError):
            run(model, recipe="fp8", said=heard, **places)
    assert heard == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["llama", "mine", "text.txt"]


@pytest.mark.parametrize("recipe", ["fp8", "int8_wo"])
def test_a_tokenizer_that_does_not_tell_its_class_will_do(
    model: Path, tmp_path: Path, recipe: str
) -> None:
    config = json.loads((model / "tokenizer_config.json").read_text())
    del config["tokenizer_class"]
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    made = run(model, tmp_path / "out", recipe)
    assert made.report["perplexity"]["quantized"] > 1


def test_a_quantized_source_is_refused(model: Path, tmp_path: Path) -> None:
    run(model, None, "fp8", hf=tmp_path / "hf")
    (tmp_path / "hf" / manifest.NAME).unlink()
    with pytest.raises((ModelError, LimitError), match="quantized"):
        run(tmp_path / "hf", tmp_path / "out", "fp8")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("recipe", ["fp8", "int8_sq", "int4_awq", "w4a8_awq", "auto"])
def test_the_checkpoint_of_a_real_model_is_as_good_as_modelopts_own(
    smollm2_gguf: Path, tmp_path: Path, recipe: str
) -> None:
    """Perplexity of the checkpoint on OpenVINO, and of ModelOpt's fake-quantized model."""
    import numpy as np

    from builder.source import open_source
    from quantize.options import EVALUATED_LENGTH
    from quantize.recording import record
    from quantize.samples import Samples
    from quantize.scorers.openvino_checkpoint import CheckpointScorer

    built_in = {"calib": None, "eval_text": None, "samples": 16, "max_length": 128}
    (tmp_path / smollm2_gguf.name).symlink_to(smollm2_gguf)
    model = tmp_path / smollm2_gguf.name
    made = run(model, tmp_path / "out", recipe, **built_in)
    options = QuantizeOptions(recipe=recipe)
    held_out = Samples(open_source(model), options, print).held_out()
    scorer = CheckpointScorer(tmp_path / "out", max_length=EVALUATED_LENGTH)
    nll = record(scorer, held_out).nll
    assert nll is not None
    found, told = float(np.exp(nll.mean())), made.report["perplexity"]
    print(recipe, told["source"], told["quantized"], found)
    assert found == pytest.approx(told["quantized"], rel=0.01)


_PROGRAM = """
import os
import sys
sys.path[:0] = {path}
from builder.convert import ConvertOptions
from quantizing import run
from pathlib import Path
import quantize.modelopt.passes as passes
def watched(*arguments, _run=passes.forward):
    {hook}
    return _run(*arguments)
passes.forward = watched
model, out, recipe = {arguments}
chosen = {chosen}
for each in ("state", "hf"):
    if each in chosen:
        chosen[each] = Path(chosen[each])
run(Path(model), Path(out), recipe, conversion=ConvertOptions(**{conversion}), **chosen)
print(*{{name.partition(".")[0] for name in sys.modules}})
"""


def program(
    model: Path, out: Path, recipe: str, chosen: dict[str, Any], *, tp: int = 1, hook: str = "pass"
) -> str:
    """Python that quantizes; `hook` runs whenever the model is about to compute."""
    return _PROGRAM.format(
        path=[str(Path(__file__).parent), str(Path(__file__).parent.parent.parent)],
        arguments=(str(model), str(out), recipe),
        chosen=chosen,
        conversion={"tp": tp},
        hook=hook,
    )


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def in_another_process(
    model: Path, out: Path, recipe: str, *, tp: int = 1, **chosen: Any
) -> set[str]:
    """Run there; returns the packages that were loaded."""
    code = program(model, out, recipe, chosen, tp=tp)
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment()
    )
    assert result.returncode == 0, result.stderr
    return set(result.stdout.splitlines()[-1].split())
