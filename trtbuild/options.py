"""Options that several commands share, declared once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

FOLDER = click.Path(file_okay=False, path_type=Path)
MODEL = click.Path(path_type=Path)


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


def layout(function: F) -> F:
    """How a checkpoint is divided over ranks."""
    for flag, text in (("--pp", "Pipeline-parallel ranks."), ("--tp", "Tensor-parallel ranks.")):
        option = click.option(flag, type=click.IntRange(1), default=1, show_default=True, help=text)
        function = option(function)
    return click.option(
        "--parallel-embedding", is_flag=True, help="Divide the embedding over the ranks too."
    )(function)


def limits(function: F) -> F:
    """The engine's limits, named as in TensorRT-LLM."""
    from builder.limits import LimitOptions

    kinds: tuple[tuple[str, type, str], ...] = (
        ("--kv-cache-gib", float, "Memory for the KV cache, in GiB."),
        ("--max-num-tokens", int, "Tokens that one step computes at most."),
        ("--max-seq-len", int, "Tokens of prompt and answer together; by default the model's."),
        ("--max-batch-size", int, "Requests in flight at once."),
    )
    for flag, kind, text in kinds:
        default = getattr(LimitOptions, flag[2:].replace("-", "_"))
        option = click.option(
            flag, type=kind, default=default, show_default=default is not None, help=text
        )
        function = option(function)
    return click.option(
        "--target",
        type=click.Choice(["openvino"]),
        default="openvino",
        show_default=True,
        help="What runs the engine.",
    )(function)


def address(function: F) -> F:
    """Where the endpoint listens."""
    function = click.option("--host", default="127.0.0.1", show_default=True)(function)
    return click.option(
        "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any."
    )(function)
