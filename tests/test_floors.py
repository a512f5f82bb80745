"""Promise: imports run down the floors, and what is heavy is imported where it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
BELOW = {
    "trtbuild": {"server", "triton_repo", "quantize", "text", "builder"},
    "server": {"text", "builder"},
    "triton_repo": {"text", "builder"},
    "quantize": {"builder"},
    "builder": set(),
    "text": set(),
}
"""Room → the rooms that it may import."""

HEAVY = {
    "torch": {
        "quantize/model.py",
        "quantize/modelopt/__init__.py",
        "quantize/modelopt/failures.py",
        "quantize/modelopt/imposition.py",
        "quantize/modelopt/passes.py",
        "quantize/modelopt/search.py",
        "quantize/modelopt/smoothings.py",
        "quantize/scorers/torch_model.py",
    },
    "transformers": {"quantize/model.py"},
    "modelopt": {
        "quantize/modelopt/__init__.py",
        "quantize/modelopt/imposition.py",
        "quantize/modelopt/search.py",
        "quantize/modelopt/smoothings.py",
    },
    "matplotlib": {"quantize/plots.py", "trtbuild/planning/plot.py"},
    "datasets": {"quantize/calibration_text.py"},
    "tensorrt_llm": {"triton_repo/runtime/llmapi/api.py"},
    "opentelemetry": {"server/telemetry/tracing/otel.py"},
    "llguidance": {"triton_repo/executor/guide/compiled.py"},
    "openvino": {
        "builder/targets/openvino.py",
        "builder/targets/openvino_attention.py",
        "builder/targets/openvino_encoder.py",
        "builder/targets/openvino_experts.py",
        "builder/targets/openvino_graph.py",
        "builder/targets/openvino_lora.py",
        "builder/targets/openvino_masks.py",
        "builder/targets/openvino_mlp.py",
        "builder/targets/openvino_nodes.py",
        "builder/targets/openvino_norm.py",
        "builder/targets/openvino_quantized.py",
        "builder/targets/openvino_rotary.py",
        "builder/targets/openvino_router.py",
        "builder/targets/openvino_weights.py",
        "quantize/scorers/openvino_checkpoint.py",
        "triton_repo/executor/lora.py",
        "triton_repo/executor/runner.py",
        "triton_repo/runtime/embedding/encoder.py",
    },
}
"""Package → the files that may import it."""

FILES = sorted(path for room in BELOW for path in (ROOT / room).rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in FILES}


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module that a file imports, anywhere in it; `a.b` for `from a import b` of one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_what_lies_below_it(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    rooms = {name.partition(".")[0] for name in imports(parsed(path))} & BELOW.keys()
    assert rooms <= BELOW[room] | {room}


def test_the_proxy_knows_of_the_builder_only_its_errors() -> None:
    for path in (ROOT / "server").rglob("*.py"):
        known = {name for name in imports(parsed(path)) if name.startswith("builder")}
        assert all(name.startswith("builder.errors") for name in known), path


def test_files_import_each_other_without_a_circle() -> None:
    graph = {
        name: {found for found in imports(parsed(path)) if found in MODULES} - {name}
        for name, path in MODULES.items()
    }
    assert len(list(TopologicalSorter(graph).static_order())) >= len(MODULES)


@pytest.mark.parametrize("package", HEAVY)
def test_heavy_packages_are_imported_only_by_the_files_that_need_them(package: str) -> None:
    importers = {
        path.relative_to(ROOT).as_posix()
        for path in FILES
        if any(name.partition(".")[0] == package for name in imports(parsed(path)))
    }
    assert importers == HEAVY[package]


def loaded_by(code: str) -> set[str]:
    """The packages loaded once `code` has run in a fresh interpreter."""
    code = f"import sys\n{code}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(result.stdout.splitlines()[-1].split())


def test_help_loads_nothing_heavy() -> None:
    code = "from trtbuild.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass"
    loaded = loaded_by(code)
    assert "click" in loaded
    assert not loaded & {*HEAVY, "numpy", "grpc", "tokenizers", "starlette", "tritonclient", "rich"}


@pytest.mark.parametrize("module", ["server", "server.app", "server.run", "builder.convert"])
def test_serving_and_converting_load_no_framework(module: str) -> None:
    loaded = loaded_by(f"import {module}")
    assert module.partition(".")[0] in loaded
    assert not loaded & HEAVY.keys()


def test_the_base_install_has_no_framework() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {line.partition(">")[0].partition("[")[0] for line in project["dependencies"]}
    assert "click" in names
    assert not names & {*HEAVY, "nvidia-modelopt", "nvidia-pytriton", "accelerate"}
