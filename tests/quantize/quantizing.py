"""Runs the whole job as `trtbuild quantize` does, with little text and nothing shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from builder.convert import ConvertOptions
from builder.progress import Progress, silent
from quantize.job import Quantized, quantize
from quantize.options import QuantizeOptions

TEXT = (Path(__file__).parent.parent / "builder" / "test_convert.py").read_text()


@contextmanager
def unseen(_: str) -> Iterator[Progress]:
    """A phase that nobody watches."""
    yield silent


def run(
    model: Path,
    out: Path | None,
    recipe: str,
    *,
    hf: Path | None = None,
    conversion: ConvertOptions | None = None,
    said: list[str] | None = None,
    free: Any = None,
    **chosen: Any,
) -> Quantized:
    """Quantize with 4 samples of 32 tokens of a text file beside the model."""
    text = model.parent / "text.txt"
    text.write_text(TEXT)
    few: dict[str, Any] = {"samples": 4, "max_length": 32, "batch_size": 2}
    few |= {"calib": str(text), "eval_text": str(text), "device": "cpu"}
    return quantize(
        model,
        out=out,
        hf=hf,
        options=QuantizeOptions(recipe=recipe, **{**few, **chosen}),
        conversion=conversion,
        phase=unseen,
        say=(said if said is not None else []).append,
        free=free,
    )


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
