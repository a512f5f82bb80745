"""What runs inside Triton, and what each Python model of a repository is made of.

The models of a repository stand alone: they need numpy, tokenizers, jinja2 and Triton's own module,
which NVIDIA's containers have, those that take text tritonclient too, and an encoder OpenVINO; and
the files named here, which the repository's writer copies into the model's version folder.
"""

from __future__ import annotations

from pathlib import Path

GRPC_ADDRESS = "TRTBUILD_TRITON_GRPC"
"""The variable that tells models the gRPC endpoint of the Triton that they run in, host:port."""
GRPC_CERTIFICATE, GRPC_KEY = f"{GRPC_ADDRESS}_CERTIFICATE", f"{GRPC_ADDRESS}_KEY"
"""Those that name the endpoint's own PEM files, where it has TLS."""

_ROOT = Path(__file__).parent.parent.parent
_RUNTIME = "triton_repo/runtime"
_ROOM = ("triton_repo/__init__.py", f"{_RUNTIME}/__init__.py", f"{_RUNTIME}/model_arguments.py")

_TEXT = (
    "text_model/model",
    "text_model/__init__",
    "text_model/answers",
    "text_model/calls",
    "text_model/client",
    "text_model/exchange",
    "text_model/request",
    "text_model/speculation",
    "text_model/wire",
    "preprocessing_tensors",
    "token_rows",
)
_ENCODER = "embedding"
"""The one that knows nothing of text."""
MODELS = {
    "preprocessing": ("preprocessing", "preprocessing_tensors"),
    "postprocessing": ("postprocessing", "token_rows"),
    "ensemble": _TEXT,
    "tensorrt_llm_bls": _TEXT,
    _ENCODER: tuple(f"embedding/{name}" for name in ("model", "__init__", "batches", "encoder")),
}
"""Upstream's name of each model written in Python → its modules here; the first is its model.py."""


def files(model: str) -> dict[str, Path]:
    """What the version folder of `model` needs: path in that folder → the file to copy there.

    Empty for a model without Python of ours, as the engine's. The same files in the same order
    each time: model.py, and beside it the packages that it imports, as they lie here.
    """
    if model not in MODELS:
        return {}
    first, *others = (f"{_RUNTIME}/{module}.py" for module in MODELS[model])
    text: list[str] = []
    if model != _ENCODER:
        text = sorted(path.relative_to(_ROOT).as_posix() for path in (_ROOT / "text").glob("*.py"))
    beside = {name: _ROOT / name for name in (*_ROOM, *others, *text)}
    return {"model.py": _ROOT / first, **beside}
