"""`trtbuild plan`: what a model needs, on which GPUs it fits, and how fast it could be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from trtbuild import options

if TYPE_CHECKING:
    from trtbuild.planning.subject import Subject


class _Names(click.Option):
    """Names with commas between, also in a setting; the flag can be given again."""

    def value_from_envvar(self, ctx: click.Context) -> Any:
        """All of it: names have blanks in them."""
        return self.resolve_envvar_value(ctx)

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """Each name once."""
        values = [value] if isinstance(value, str) else value or ()
        parts = (part.strip() for each in values for part in str(each).split(","))
        names = tuple(dict.fromkeys(filter(None, parts)))
        if values and not names:
            raise click.BadParameter("no names in it", ctx, self)
        return names


@click.command()
@click.argument("model", type=options.MODEL)
@click.option(
    "--gpu",
    "gpus",
    cls=_Names,
    multiple=True,
    required=True,
    help="GPUs to look at: H100-80GB,L40S (or give the option again).",
)
@click.option(
    "--recipe",
    "recipes",
    cls=_Names,
    multiple=True,
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
    type=options.COUNT,
    default=2048,
    show_default=True,
    help="Tokens of a request's prompt.",
)
@click.option(
    "--output-len",
    type=options.COUNT,
    default=512,
    show_default=True,
    help="Tokens of an answer.",
)
@click.option(
    "--max-gpus",
    type=options.COUNT,
    default=8,
    show_default=True,
    help="The most that one engine is divided over, in powers of two.",
)
@click.option(
    "--max-num-tokens",
    type=options.COUNT,
    default=8192,
    show_default=True,
    help="Tokens that one step computes at most; an engine has its own.",
)
@click.option(
    "--max-batch-size",
    type=options.COUNT,
    default=256,
    show_default=True,
    help="Requests in flight at once at most; an engine has its own.",
)
@click.option(
    "--kv-fraction",
    type=options.Finite(0, 1, min_open=True),
    default=0.9,
    show_default=True,
    help="The KV cache's part of the memory that is free once the engine is loaded.",
)
@click.option(
    "--all", "everything", is_flag=True, help="Show every layout, not the smallest that fits."
)
@click.option("--png", type=options.FILE_TO_WRITE, help="File to draw the plan in.")
@options.as_json
@click.pass_context
def plan(
    ctx: click.Context,
    /,
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
    engine. Neither weights nor a GPU are needed. Exits with 1 where nothing fits.
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
    found = tuple(dict.fromkeys(map(find, gpus)))
    wish = Wish(gpus=found, recipes=recipes, **asked)  # type: ignore[arg-type]
    subject = read(model)
    _refuse_settled(ctx, subject)
    made = run(subject, wish)
    best = recommend(made)
    if png is not None:
        png.write_bytes(plot.draw(made, best))
    if as_json:
        click.echo(json.dumps(document(made, best), indent=2))
    else:
        table.show(made, best, everything=everything)
    if best is None:
        ctx.exit(1)


def _refuse_settled(ctx: click.Context, subject: Subject) -> None:
    """Raise UsageError for a flag that asks for what the subject already is."""
    settled = [
        *(() if subject.quantization is None else ("recipes", "kv_cache")),
        *(() if subject.layout is None else ("max_gpus",)),
        *(subject.limits or ()),
    ]
    for param in ctx.command.params:
        given = ctx.get_parameter_source(str(param.name)) is ParameterSource.COMMANDLINE
        if given and param.name in settled:
            raise click.UsageError(
                f"{param.opts[0]} is not for this {subject.kind}, which has its own.", ctx
            )
