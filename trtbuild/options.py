"""Options that several commands share, declared once."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import click

F = TypeVar("F", bound=Callable[..., Any])

FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FILE_TO_WRITE = click.Path(dir_okay=False, path_type=Path)
MODEL = click.Path(path_type=Path)
COUNT = click.IntRange(1)


class Finite(click.FloatRange):
    """A number, which "nan" and "inf" are not, though a range alone lets them through."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """As click does it."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


SECONDS = Finite(min=0, min_open=True)
SECONDS_OR_NONE = Finite(min=0)


def _checked_name(_: click.Context, __: click.Parameter, name: str | None) -> str | None:
    """A name that can be shown in a line, a URL and a path below the working folder."""
    if name is None or (name.isprintable() and not {"", ".", ".."} & set(name.split("/"))):
        return name
    raise click.BadParameter(f"{name!r} is not a name: letters, and single slashes between them")


out = click.option("-o", "--out", type=FOLDER, required=True, help="Folder to write.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
name = click.option(
    "--name", callback=_checked_name, help="The served model's name; by default the model's own."
)
dtype = click.option(
    "--dtype",
    type=click.Choice(["auto", "float16", "bfloat16", "float32"]),
    default="auto",
    show_default=True,
    help="The weights' dtype; auto keeps the model's (float32 becomes float16).",
)

recipe = click.option(
    "--recipe",
    type=click.Choice(["int8_wo", "int4_wo"]),
    help="Weight-only quantization, which TensorRT-LLM does when it builds the engine.",
)


def layout(function: F) -> F:
    """How a checkpoint is divided over ranks. The command gets --moe-tp and --moe-ep as moe_ep."""

    @wraps(function)
    def command(*args: Any, moe_tp: int | None, moe_ep: int | None, **chosen: Any) -> Any:
        return function(*args, moe_ep=_expert_ranks(chosen["tp"], moe_tp, moe_ep), **chosen)

    for flag, most, default, text in (
        ("--gpus-per-node", None, 8, "GPUs of a machine, where several machines hold the ranks."),
        (
            "--embedding-sharding-dim",
            1,
            0,
            "What of the embedding is divided: 0 its rows, 1 its columns.",
        ),
        ("--moe-ep", None, None, "Ranks that share out the experts; by default tp / moe-tp, or 1."),
        ("--moe-tp", None, None, "Ranks that each expert is divided over; by default tp / moe-ep."),
        ("--cp", None, 1, "Context-parallel ranks; they share their weights."),
        ("--pp", None, 1, "Pipeline-parallel ranks."),
        ("--tp", None, 1, "Tensor-parallel ranks."),
    ):
        kind = click.IntRange(1 if most is None else 0, most)
        shown = default is not None
        option = click.option(flag, type=kind, default=default, show_default=shown, help=text)
        command = option(command)
    parallel = click.option(
        "--parallel-embedding", is_flag=True, help="Divide the embedding over the ranks too."
    )
    return cast(F, parallel(command))


def _expert_ranks(tp: int, moe_tp: int | None, moe_ep: int | None) -> int:
    """How many groups of ranks hold the experts: tp = moe_tp * moe_ep."""
    found = moe_ep or (tp // moe_tp if moe_tp else 1)
    if moe_tp and found * moe_tp != tp:
        asked = f"--moe-tp {moe_tp}" + (f" and --moe-ep {moe_ep}" if moe_ep else "")
        raise click.UsageError(f"--moe-tp times --moe-ep is --tp, but --tp is {tp} with {asked}.")
    return found


def address(function: F) -> F:
    """Where the endpoint listens."""
    function = click.option(
        "--host", default="127.0.0.1", show_default=True, help="Address to listen on."
    )(function)
    return click.option(
        "--port",
        type=click.IntRange(0, 65535),
        default=8000,
        show_default=True,
        help="Port to listen on; 0 is any.",
    )(function)
