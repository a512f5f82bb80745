"""`trtbuild quantize`: a model into a quantized checkpoint, a Hugging Face folder, or both."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trtbuild import console, options, quantize_options

if TYPE_CHECKING:
    from quantize.job import Quantized

_CONVERSION = {
    *("dtype", "name", "tp", "pp", "cp", "moe_ep"),
    *("parallel_embedding", "embedding_sharding_dim", "gpus_per_node"),
}


@click.command()
@click.argument("model", type=options.MODEL)
@click.option("-o", "--out", type=options.FOLDER, help="Checkpoint folder to write.")
@click.option(
    "--hf",
    type=options.FOLDER,
    help="Hugging Face folder to write, for TensorRT-LLM 1.3 and later, vLLM and SGLang.",
)
@quantize_options.recipe(required=True)
@quantize_options.calibration
@quantize_options.quality
@options.dtype
@options.layout
@options.name
@options.as_json
def quantize(
    model: Path,
    out: Path | None,
    hf: Path | None,
    as_json: bool,
    max_ppl_increase: str | None,
    no_eval: bool,
    no_chat_template: bool,
    **chosen: Any,
) -> None:
    """Calibrate and quantize MODEL (a Hugging Face folder or a .gguf file).

    What it cost in quality is in report.html and report.json beside the weights.
    """
    if out is None and hf is None:
        raise click.UsageError("Missing option '-o' / '--out' or '--hf'.")
    from builder.convert import ConvertOptions
    from quantize.job import quantize as run
    from quantize.job import require_quality
    from quantize.options import QuantizeOptions
    from quantize.report import fraction

    conversion = ConvertOptions(**{key: chosen.pop(key) for key in _CONVERSION})
    limit = None if max_ppl_increase is None else fraction(max_ppl_increase)
    made = run(
        model,
        out=out,
        hf=hf,
        options=QuantizeOptions(
            evaluate=not no_eval,
            chat_template=not no_chat_template,
            max_ppl_increase=limit,
            **chosen,
        ),
        conversion=conversion,
        phase=console.progress_bar,
        say=console.say,
    )
    _show(made, out, hf, as_json=as_json)
    require_quality(made.report, limit)


def _show(made: Quantized, out: Path | None, hf: Path | None, *, as_json: bool) -> None:
    written = [(out, made.checkpoint), (hf, made.huggingface)]
    if as_json:
        artifacts = [{"path": str(path), **asdict(found)} for path, found in written if found]
        click.echo(json.dumps({"artifacts": artifacts, "report": made.report}, indent=2))
        return
    for path, found in written:
        if path is not None and found is not None:
            console.report(path, found, as_json=False)
    click.echo(quantize_options.summary(made.report, Path(str(out or hf)) / "report.html"))
