"""Options of quantizing that `quantize` and `up` share, and how its result is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from quantize.options import DEVICES, QuantizeOptions
from quantize.recipes import KV_CACHES, RECIPES
from trtbuild.options import COUNT, FOLDER, F


def recipe(*, required: bool) -> Callable[[F], F]:
    """--recipe and --kv-cache."""

    def options(function: F) -> F:
        function = click.option(
            "--kv-cache",
            type=click.Choice(list(KV_CACHES)),
            default=QuantizeOptions.kv_cache,
            show_default=True,
            help="How keys and values are kept.",
        )(function)
        return click.option(
            "--recipe",
            type=click.Choice(list(RECIPES)),
            required=required,
            help="How to quantize: trtbuild recipes lists them.",
        )(function)

    return options


def text(function: F) -> F:
    """The calibration's text, and how much of it."""
    function = click.option(
        "--samples",
        type=COUNT,
        default=QuantizeOptions.samples,
        show_default=True,
        help="Samples to calibrate on.",
    )(function)
    return click.option(
        "--calib",
        metavar="FILE|NAME",
        help="Text to calibrate on, a .jsonl or text file or a data set of Hugging Face;"
        " by default the built-in one.",
    )(function)


def calibration(function: F) -> F:
    """How to calibrate, and on what."""
    own = QuantizeOptions
    for option in (
        click.option("--trust-remote-code", is_flag=True, help="Run code from the model's folder."),
        click.option(
            "--save-state",
            "state",
            type=FOLDER,
            help="Folder that keeps what is found, to go on after a kill or for another layout.",
        ),
        click.option(
            "--device",
            type=click.Choice(DEVICES),
            default=own.device,
            show_default=True,
            help="Where it is computed.",
        ),
        click.option(
            "--no-chat-template",
            is_flag=True,
            help="Render no conversation with the chat template.",
        ),
        click.option(
            "--seed", default=own.seed, show_default=True, help="Seed of the text's order."
        ),
        click.option(
            "--batch-size",
            type=COUNT,
            default=own.batch_size,
            show_default=True,
            help="Samples computed at once.",
        ),
        click.option(
            "--max-length",
            type=click.IntRange(2),
            default=own.max_length,
            show_default=True,
            help="Tokens of a sample.",
        ),
        click.option(
            "--bits",
            "bits_per_weight",
            type=float,
            help="Mean size of a weight in bits, for the recipe auto.",
        ),
        click.option("--group-size", type=int, help="Inputs that share a scale, 64 or 128."),
        click.option("--alpha", type=float, help="SmoothQuant's alpha, 0 to 1."),
    ):
        function = option(function)
    return text(function)


def quality(function: F) -> F:
    """What to measure and to refuse."""
    for option in (
        click.option("--gpu", help="The GPU it is for: what that can't run is refused."),
        click.option(
            "--max-ppl-increase",
            metavar="2%",
            help="Fail, after writing everything, if the perplexity grows by more.",
        ),
        click.option("--no-eval", is_flag=True, help="Don't compare the models."),
        click.option(
            "--eval",
            "eval_text",
            metavar="FILE|NAME",
            help="Held-out text to compare the models on; by default the built-in one.",
        ),
    ):
        function = option(function)
    return function


def summary(told: Mapping[str, Any], report: Path) -> str:
    """A line on what the quantization cost."""
    perplexity = told["perplexity"]
    if perplexity["increase"] is None:
        cost = f"quality not measured ({told['not_measured'].get('evaluation', 'no logits')})"
    else:
        cost = (
            f"perplexity {perplexity['source']:.2f} → {perplexity['quantized']:.2f}"
            f" ({100 * perplexity['increase']:+.1f} %), the same next token in"
            f" {100 * told['agreement']:.1f} % of places"
        )
    size = "" if told["size_ratio"] is None else f", {told['size_ratio']:.2f} of the size"
    return f"quality: {cost}{size} ({report})"
