"""Promise: an engine is replaced while it serves, and nobody notices but by the answers."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import peft_adapters
import pytest
from running import stream
from test_several_engines import DRAFTING, TINY, WITH_LORA, gpu_engine
from tiny_engine import EngineOf, make_engine, sentencepiece_tokenizer
from willing import Willing

from builder import artifact, manifest
from builder.errors import ArtifactError, LaunchError, LimitError, OutputError, TrtbuildError
from triton_repo.contract import MODELS
from triton_repo.control import access
from triton_repo.control.client import Control, ModelVersion
from triton_repo.control.sets import load_order
from triton_repo.control.swap import swap
from triton_repo.launch.triton import LaunchConfig, Triton
from triton_repo.layout import Part, describe, write_parts, write_repository
from triton_repo.models.pbtxt import from_text
from triton_repo.settings.options import RepositoryOptions

PROMPT = [9, 31, 7]
LINEAR = "model.layers.0.self_attn.o_proj"


def tokens(triton: Triton, count: int, begun: Callable[[], object] = bool) -> list[int]:
    """The greedy answer to PROMPT, streamed; `begun` is called when some of it has come."""
    request = {
        "input_ids": np.array([PROMPT], np.int32),
        "input_lengths": np.array([[len(PROMPT)]], np.int32),
        "request_output_len": np.array([[count]], np.int32),
        "end_id": np.array([[-1]], np.int32),
        "streaming": np.array([[True]]),
    }
    responses = stream(triton, "tensorrt_llm", request, begun=begun)
    return [int(t) for r in responses for t in r.as_numpy("output_ids").reshape(-1)]


def text(triton: Triton) -> str:
    """The answer of the ensemble, whole."""
    body = json.dumps({"text_input": "ab", "max_tokens": 24}).encode()
    url = f"http://{triton.http_address}/v2/models/ensemble/generate"
    with urlopen(Request(url, body), timeout=60) as response:
        answer = json.loads(response.read())
    return str(answer["text_output"])


def status(triton: Triton, path: str) -> int:
    try:
        with urlopen(f"http://{triton.http_address}{path}", timeout=60) as response:
            return int(response.status)
    except OSError as error:
        return int(getattr(error, "code", 0))


@pytest.fixture
def triton(engine_of: EngineOf, tmp_path: Path) -> Iterator[Triton]:
    write_repository(engine_of("llama"), tmp_path / "repo")
    config = LaunchConfig(
        repository=tmp_path / "repo", log_path=tmp_path / "log", model_control=True, grace_s=3
    )
    with Triton(config) as running:
        yield running


def control_of(triton: Triton) -> Control:
    return Control(access.read(triton.config.log_path))


@dataclass
class Load:
    """Requests one after the other on several threads; what they got, and when they began."""

    triton: Triton
    answers: list[tuple[float, str, str]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self, kind: str) -> None:
        while not self.stop.is_set():
            began = time.monotonic()
            try:
                got = str(tokens(self.triton, 60)) if kind == "tokens" else text(self.triton)
            except Exception as error:  # noqa: BLE001
                self.errors.append(f"{kind}: {error!r}")
            else:
                self.answers.append((began, kind, got))


@pytest.mark.triton
def test_three_swaps_under_load_lose_no_request(triton: Triton, engine_of: EngineOf) -> None:
    repository = triton.config.repository
    load = Load(triton)
    expected = {"llama": {"tokens": str(tokens(triton, 60)), "text": text(triton)}}
    threads = [threading.Thread(target=load.run, args=(kind,)) for kind in ("tokens", "text") * 3]
    for thread in threads:
        thread.start()
    served = ["llama"]
    moments = []
    for name in ("llama_bias", "llama", "llama_bias"):
        before = time.monotonic()
        done = swap(repository, engine_of(name), control_of(triton))
        moments.append((before, time.monotonic()))
        served.append(name)
        assert done.drained
        assert done.version == len(served)
        now = {"tokens": str(tokens(triton, 60)), "text": text(triton)}
        assert expected.setdefault(name, now) == now
    load.stop.set()
    for thread in threads:
        thread.join()
    assert load.errors == []
    assert all(expected["llama"][k] != expected["llama_bias"][k] for k in ("tokens", "text"))
    for began, kind, got in load.answers:
        assert got in {answers[kind] for answers in expected.values()}
        # begun when a swap was over and before the next: that engine's answer
        past = sum(end < began for _, end in moments)
        if past == sum(start < began for start, _ in moments) == len(moments):
            assert got == expected[served[past]][kind]
    assert len(load.answers) > 20
    assert triton.restarts == 0
    artifact.verify(repository, manifest.read(repository))
    assert {v.version for v in control_of(triton).index() if v.ready} == {4}
    assert versions(repository) == {"4"}


@pytest.mark.triton
def test_an_engine_that_does_not_load_leaves_the_old_one_serving(
    triton: Triton, engine_of: EngineOf, tmp_path: Path
) -> None:
    repository, before = triton.config.repository, tokens(triton, 20)
    kept = snapshot(repository)
    broken = tmp_path / "broken"
    shutil.copytree(engine_of("llama_bias"), broken)
    model = broken / "openvino_model.xml"
    model.write_bytes(b"?" * model.stat().st_size)
    with pytest.raises(LaunchError, match="load failed for model 'tensorrt_llm'"):
        swap(repository, broken, control_of(triton))
    assert tokens(triton, 20) == before
    assert snapshot(repository) == kept
    assert status(triton, "/v2/models/tensorrt_llm/ready") == 200
    # Triton keeps what failed in mind until that version loads
    assert status(triton, "/v2/health/ready") == 400
    swap(repository, engine_of("llama_bias"), control_of(triton))
    assert tokens(triton, 20) != before
    assert status(triton, "/v2/health/ready") == 200


def versions(repository: Path) -> set[str]:
    return {path.name for path in repository.glob("*/*") if path.is_dir()}


def snapshot(repository: Path) -> dict[str, bytes]:
    files = (path for path in repository.rglob("*") if path.is_file())
    return {
        path.relative_to(repository).as_posix(): path.read_bytes()
        for path in files
        if "__pycache__" not in path.parts
    }


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    write_repository(make_engine(tmp_path / "old"), tmp_path / "repo")
    return tmp_path / "repo"


def test_every_model_of_the_engine_gets_the_version_and_the_manifest_says_so(
    repository: Path, tmp_path: Path
) -> None:
    new = make_engine(tmp_path / "new", max_batch_size=9, max_seq_len=300, max_input_len=299)
    control = Willing()
    swap(repository, new, control)
    assert control.loaded[0] == "tensorrt_llm"
    assert sorted(control.loaded) == sorted(load_order(repository, ()))
    assert versions(repository) == {"2"}
    served = describe(repository)
    assert (served.max_batch_size, served.max_seq_len, served.name) == (9, 300, "tiny")
    assert served.engine_dir == repository.resolve() / "tensorrt_llm" / "2"
    artifact.verify(repository, manifest.read(repository))
    assert named_paths(repository)


def named_paths(repository: Path) -> set[str]:
    """The paths that the configs name; each is there."""
    found = set()
    for config in repository.glob("*/config.pbtxt"):
        for parameter in from_text(config.read_text()).parameters.values():
            if parameter.string_value.startswith("tensorrt_llm/"):
                found.add(parameter.string_value)
        assert any(path.name.isdigit() for path in config.parent.iterdir())
    assert all((repository / path).exists() for path in found)
    return found


def test_of_several_engines_one_is_replaced(tmp_path: Path) -> None:
    first, second = make_engine(tmp_path / "first"), make_engine(tmp_path / "second")
    parts = [Part(engine=first, name="a"), Part(engine=second, name="b")]
    write_parts(parts, tmp_path / "repo")
    kept = {k: v for k, v in snapshot(tmp_path / "repo").items() if k.startswith("a_")}
    control = Willing()
    new = make_engine(tmp_path / "new", max_batch_size=20)
    swap(tmp_path / "repo", new, control, name="b")
    assert all(model.startswith("b_") for model in control.loaded)
    assert {k: v for k, v in snapshot(tmp_path / "repo").items() if k.startswith("a_")} == kept
    batches = [engine.max_batch_size for engine in describe(tmp_path / "repo").engines]
    assert batches == [8, 20]
    artifact.verify(tmp_path / "repo", manifest.read(tmp_path / "repo"))
    with pytest.raises(LaunchError, match="serves no c; found a, b"):
        swap(tmp_path / "repo", new, control, name="c")


def test_adapters_draft_and_options_stay_with_the_engine(tmp_path: Path) -> None:
    adapters = {
        name: peft_adapters.by_hand(tmp_path / name, {LINEAR: (8, 8)}, r=rank)
        for name, rank in (("poet", 2), ("bard", 3))
    }
    part = Part(
        engine=gpu_engine(tmp_path / "old", model=TINY, **WITH_LORA, **DRAFTING),
        adapters=adapters,
        draft=gpu_engine(tmp_path / "small", model=TINY),
        options=RepositoryOptions(max_queue_size=7),
        draft_options=RepositoryOptions(cancellation_check_period_ms=55),
    )
    repository = tmp_path / "repo"
    write_parts([part], repository)
    before = arrays(repository / "tensorrt_llm" / "1")
    new = gpu_engine(tmp_path / "new", model=TINY, **WITH_LORA, **DRAFTING, max_batch_size=9)
    control = Willing()
    swap(repository, new, control)
    assert "tensorrt_llm_draft" in control.loaded
    assert versions(repository) == {"2"}
    assert describe(repository).first.adapters == {"poet": 1, "bard": 2}
    assert arrays(repository / "tensorrt_llm" / "2") == before
    assert len(before) == 4
    assert "tensorrt_llm/2/lora_prefetch" in named_paths(repository)
    configs = {each.parent.name: each.read_text() for each in repository.glob("*/config.pbtxt")}
    assert "max_queue_size: 7" in configs["tensorrt_llm"]
    assert '"55"' in configs["tensorrt_llm_draft"]
    assert "tensorrt_llm_draft" in configs["tensorrt_llm_bls"]
    assert "tensorrt_llm/2/lora_prefetch/2/model.lora_config.npy" in manifest.read(repository).files
    poor = {"lora_config": {"lora_target_modules": ["attn_dense"], "max_lora_rank": 2}}
    with pytest.raises(LimitError, match=r"doesn't take the adapter bard.* rank of 3 "):
        swap(repository, gpu_engine(tmp_path / "poor", model=TINY, **poor, **DRAFTING), control)
    plain = gpu_engine(tmp_path / "plain", model=TINY, **DRAFTING)
    with pytest.raises(LimitError, match="needs an engine for LoRA adapters"):
        swap(repository, plain, control)
    assert versions(repository) == {"2"}


def arrays(engine: Path) -> dict[str, bytes]:
    return {str(p.relative_to(engine)): p.read_bytes() for p in engine.glob("lora_prefetch/*/*")}


def test_what_users_would_notice_is_refused_and_changes_nothing(
    repository: Path, tmp_path: Path
) -> None:
    kept = snapshot(repository)
    short = make_engine(tmp_path / "short", max_seq_len=128, max_input_len=127)
    other = make_engine(tmp_path / "other", tokenizer=sentencepiece_tokenizer())
    gpu = make_engine(tmp_path / "gpu", files=("rank0.engine",), target="tensorrt-llm")
    control = Willing()
    refusals: list[tuple[Path, type[TrtbuildError], str]] = [
        (short, LimitError, r"max_seq_len of the new engine is lower.*128 after 256"),
        (other, ArtifactError, r"another tokenizer.*another tokenizer.json"),
        (gpu, LimitError, "another target"),
        (tmp_path, ArtifactError, "not a trtbuild artifact"),
    ]
    for engine, kind, words in refusals:
        with pytest.raises(kind, match=words):
            swap(repository, engine, control)
    with pytest.raises(LaunchError, match="several ranks"):
        swap(repository, make_engine(tmp_path / "new"), Willing(model_control=False))
    assert control.loaded == []
    assert snapshot(repository) == kept


def test_a_full_disk_changes_nothing(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = snapshot(repository)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OutputError, match="No space left"):
        swap(repository, make_engine(tmp_path / "new"), Willing())
    assert snapshot(repository) == kept


# of each model's version, of each model's config, of the manifest
_RENAMES = 2 * len(MODELS) + 1
STEPS = (
    *(f"rename {n}" for n in (1, len(MODELS), len(MODELS) + 1, 2 * len(MODELS), _RENAMES)),
    "load",
    "confirm",
    "clear",
)


@pytest.mark.parametrize("step", STEPS)
def test_a_swap_that_is_killed_leaves_a_repository_that_loads(
    step: str, repository: Path, tmp_path: Path
) -> None:
    """Killed at each rename that is seen from outside, and before each step; by os._exit, after
    which nothing runs."""
    new = make_engine(tmp_path / "new", max_batch_size=9)
    script = f"""
        import os, sys
        from pathlib import Path
        sys.path[:0] = {sys.path!r}
        from willing import Willing
        from triton_repo.control.swap import swap
        from triton_repo.control.succession import Succession
        step, _, number = {step!r}.partition(" ")
        def end(*_, **__): os._exit(9)
        if step == "load":
            Willing.load = end
        elif step == "rename":
            rename, left = Path.rename, [int(number)]
            def counted(self, target):
                if "/.next/" in str(self) and ".partial" not in str(self):
                    left[0] -= 1
                    if not left[0]:
                        end()
                return rename(self, target)
            Path.rename = counted
        else:
            setattr(Succession, step, end)
        swap(Path({str(repository)!r}), Path({str(new)!r}), Willing())
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert killed.returncode == 9
    served = describe(repository)
    assert (served.engine_dir / "config.json").is_file()
    assert (served.tokenizer_dir / "tokenizer.json").is_file()
    assert named_paths(repository)
    again = swap(repository, new, Willing())
    assert versions(repository) == {str(again.version)}
    assert describe(repository).max_batch_size == 9
    assert not list(repository.glob("*/.*next*"))
    artifact.verify(repository, manifest.read(repository))


def test_an_old_version_that_never_leaves_is_named_and_its_files_stay(
    repository: Path, tmp_path: Path
) -> None:
    """As Triton 2.51 does when a client cancels its stream in the moment of its end."""
    new = make_engine(tmp_path / "new", max_batch_size=9)
    control, said = Willing(), list[str]()
    control.held = (ModelVersion(name="tensorrt_llm", version=1, state="UNLOADING"),)
    done = swap(repository, new, control, drain_s=0.3, say=said.append)
    assert (done.version, done.drained) == (2, False)
    assert "still in memory: tensorrt_llm 1 (unloading)" in said[-1]
    assert versions(repository) == {"1", "2"}
    assert describe(repository).max_batch_size == 9
    assert not swap(repository, new, control, drain_s=0).drained
    assert versions(repository) == {"1", "3"}
    artifact.verify(repository, manifest.read(repository))
    assert swap(repository, new, Willing()).drained
    assert versions(repository) == {"4"}


def test_two_swaps_at_once_are_one_too_many(repository: Path, tmp_path: Path) -> None:
    new = make_engine(tmp_path / "new")

    class Nested(Willing):
        def load(self, model: str) -> None:
            with pytest.raises(LaunchError, match="being changed by another"):
                swap(repository, new, Willing())
            super().load(model)

    swap(repository, new, Nested())


def test_names_of_engines_and_models_are_loaded_in_their_order(tmp_path: Path) -> None:
    parts = [Part(engine=make_engine(tmp_path / name), name=name) for name in ("a", "b")]
    write_parts(parts, tmp_path / "repo")
    everything = load_order(tmp_path / "repo", ())
    assert everything.index("b_tensorrt_llm") < everything.index("b_ensemble")
    assert load_order(tmp_path / "repo", ("b", "a_ensemble", "b_ensemble"))[0] == "a_ensemble"
    with pytest.raises(LaunchError, match="no model or engine c; found a, b, a_ensemble"):
        load_order(tmp_path / "repo", ("c",))
