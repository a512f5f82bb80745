"""`trtbuild plan`: what a model needs, on which GPUs it fits, and how fast it could be."""

from __future__ import annotations

import json
from pathlib import Path

import click

from trtbuild import options


def _list(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part.strip() for value in values for part in value.split(",") if part.strip())


@click.command()
@click.argument("model", type=options.MODEL)
@click.option(
    "--gpu",
    "gpus",
    multiple=True,
    required=True,
    callback=_list,
    help="GPUs to look at: H100-80GB,L40S (or give the option again).",
)
@click.option(
    "--recipe",
    "recipes",
    multiple=True,
    callback=_list,
    help="Recipes to look at, none for the model as it is; by default all.",
)
@click.option(
    "--kv-cache",
    type=click.Choice(["none", "fp8", "int8"]),
    default="none",
    show_default=True,
    help="What the calibrated recipes keep keys and values in; none is the model's dtype.",
)
@click.option(
    "--input-len",
    type=click.IntRange(1),
    default=2048,
    show_default=True,
    help="Tokens of a request's prompt.",
)
@click.option(
    "--output-len",
    type=click.IntRange(1),
    default=512,
    show_default=True,
    help="Tokens of its answer.",
)
@click.option(
    "--max-gpus",
    type=click.IntRange(1),
    default=8,
    show_default=True,
    help="The most that one engine is divided over, in powers of two.",
)
@click.option(
    "--max-num-tokens",
    type=click.IntRange(1),
    default=8192,
    show_default=True,
    help="Tokens that one step computes at most; an engine's own counts.",
)
@click.option(
    "--max-batch-size",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    help="Requests in flight at once at most; an engine's own counts.",
)
@click.option(
    "--kv-fraction",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.9,
    show_default=True,
    help="The KV cache's part of the memory that is free once the engine is loaded.",
)
@click.option("--all", "everything", is_flag=True, help="Every layout, not the smallest that fits.")
@click.option("--png", type=click.Path(dir_okay=False, path_type=Path), help="Draw it there.")
@options.as_json
def plan(
    model: Path,
    gpus: tuple[str, ...],
    recipes: tuple[str, ...],
    everything: bool,
    png: Path | None,
    as_json: bool,
    **asked: object,
) -> None:
    """Say where MODEL fits, how many requests it holds, and how fast it could be.

    MODEL is a Hugging Face folder (config.json is enough), a .gguf file, a checkpoint or an
    engine. Neither weights nor a GPU are needed.
    """
    from builder.gpus import find
    from trtbuild.planning import plot, table
    from trtbuild.planning.candidates import Wish
    from trtbuild.planning.candidates import plan as run
    from trtbuild.planning.document import document
    from trtbuild.planning.recipes import check_names
    from trtbuild.planning.recommend import recommend
    from trtbuild.planning.subject import read

    check_names(recipes)
    wish = Wish(gpus=tuple(map(find, gpus)), recipes=recipes, **asked)  # type: ignore[arg-type]
    made = run(read(model), wish)
    best = recommend(made)
    if png is not None:
        png.write_bytes(plot.draw(made, best))
    if as_json:
        click.echo(json.dumps(document(made, best), indent=2))
    else:
        table.show(made, best, everything=everything)
