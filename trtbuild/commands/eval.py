"""`trtbuild eval`: what one model's quantization cost against another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trtbuild import console, options

if TYPE_CHECKING:
    from quantize.report import Report


def _part(_: click.Context, __: click.Parameter, given: str | None) -> float | None:
    """A percentage or a fraction."""
    from builder.errors import LimitError
    from quantize.report import fraction

    try:
        return None if given is None else fraction(given)
    except LimitError as error:
        raise click.BadParameter(str(error)) from error


@click.command()
@click.argument("a")
@click.argument("b")
@click.option("--text", metavar="FILE", help="Text or .jsonl; by default the built-in text.")
@click.option(
    "--tokens", type=click.IntRange(2), help="Tokens of the text at most; by default 8192."
)
@click.option("--max-length", type=click.IntRange(2), help="Tokens of a sequence; by default 512.")
@click.option("--tokenizer", type=options.MODEL, help="Whose token ids are used; by default A's.")
@click.option("--api-key", help="API key of an endpoint.")
@click.option(
    "--report", type=options.FOLDER, help="Folder for report.html, report.json and plots."
)
@click.option(
    "--max-ppl-increase",
    callback=_part,
    metavar="PART",
    help="Growth of the perplexity at most, as 2% or 0.02.",
)
@click.option(
    "--min-agreement",
    callback=_part,
    metavar="PART",
    help="Agreement of top-1 tokens at least, as 95%.",
)
@options.as_json
def eval(  # the command's name
    a: str,
    b: str,
    text: str | None,
    tokens: int | None,
    max_length: int | None,
    tokenizer: Path | None,
    api_key: str | None,
    report: Path | None,
    max_ppl_increase: float | None,
    min_agreement: float | None,
    as_json: bool,
) -> None:
    """Compare B with its source A: perplexity, KL divergence, top-1 agreement.

    Each is a Hugging Face folder, a .gguf file, a checkpoint, or a running endpoint: URL or
    URL#MODEL. Fails, after writing the report, where a limit isn't kept.
    """
    from builder.errors import LimitError
    from quantize.options import EVALUATED_LENGTH, EVALUATED_SAMPLES
    from quantize.report import Limits, failures
    from trtbuild.evaluation import Target, Text, evaluate

    chosen = Text(
        source=text,
        tokens=tokens or EVALUATED_SAMPLES * EVALUATED_LENGTH,
        max_length=max_length or EVALUATED_LENGTH,
    )
    with console.progress_bar("eval") as progress:
        found = evaluate(
            Target(a, key=api_key),
            Target(b, key=api_key),
            text=chosen,
            limits=Limits(max_ppl_increase=max_ppl_increase, min_agreement=min_agreement),
            tokenizer=tokenizer,
            progress=progress,
        )
    if report is not None:
        from quantize.report_folder import write

        write(found, report)
    _show(found, report, as_json=as_json)
    if failed := failures(found):
        raise LimitError(f"the quantization costs too much: {'; '.join(failed)}")


def _show(found: Report, folder: Path | None, *, as_json: bool) -> None:
    from quantize.report import HTML
    from quantize.report import as_json as content
    from quantize.report_headline import headline

    if as_json:
        click.echo(json.dumps(content(found), indent=2, allow_nan=False))
        return
    lines = headline(found)
    width = max(len(line.title) for line in lines)
    for line in lines:
        click.echo(f"{line.title:{width}}  {line.figure}" + (f": {line.note}" if line.note else ""))
    for error in (found.weight_errors or ())[:3]:
        click.echo(f"{'weight error':{width}}  {100 * error.relative:.2f} % {error.module}")
    if folder is not None:
        click.echo(f"report: {folder / HTML}")
