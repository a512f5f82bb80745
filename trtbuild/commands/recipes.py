"""`trtbuild recipes`: what a model can be quantized to, and what each needs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from trtbuild import options

if TYPE_CHECKING:
    from quantize.recipes import Recipe


@click.command()
@click.option("--gpu", help="Say of each whether this GPU runs it: H100, RTX 4090, sm89, …")
@options.as_json
def recipes(gpu: str | None, as_json: bool) -> None:
    """List the recipes of `trtbuild quantize`."""
    from builder.gpus import sm
    from quantize.recipes import RECIPES

    capability = None if gpu is None else sm(gpu)
    rows = [_facts(recipe, capability) for recipe in RECIPES.values()]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    if gpu is not None:
        runs = [row["recipe"] for row in rows if row["runs"]]
        click.echo(f"{gpu} (SM {capability}) runs {', '.join(runs) or 'none of them'}\n")
    _table(rows, gpu)


def _facts(recipe: Recipe, capability: int | None) -> dict[str, Any]:
    from builder.targets.tensorrt_llm.rules_gpu import DATACENTER_BLACKWELL as LATER
    from quantize.gpus import GENERATIONS, least_sm, why_not

    least = least_sm(recipe)
    refused = why_not(recipe, LATER.start) is not None
    facts: dict[str, Any] = {
        "recipe": recipe.name,
        "quant_algo": recipe.quant_algo,
        "bits_per_weight": recipe.bits_per_weight,
        "part_of_bfloat16": recipe.bits_per_weight / 16,
        "activations": recipe.activations,
        "calibrates": recipe.calibrates,
        "group_sizes": list(recipe.group_sizes),
        "gpu": GENERATIONS[least],
        "min_sm": least,
        "refused_sm": [LATER.start, LATER.stop - 1] if refused else None,
        "cpu": recipe.on_cpu,
        "use": recipe.use,
    }
    if capability is not None:
        why = why_not(recipe, capability)
        facts |= {"runs": why is None, "why_not": why}
        facts |= {"tested": capability not in recipe.untested_sm}
    return facts


def _table(rows: list[dict[str, Any]], gpu: str | None) -> None:
    """A line for each recipe, and under it what it is for."""
    columns = ["RECIPE", "ALGORITHM", "SIZE", "COMPUTES IN", "GPU", "CPU"]
    lines = [
        [
            row["recipe"],
            row["quant_algo"],
            f"{row['part_of_bfloat16']:.0%}",
            row["activations"],
            _generations(row),
            row["cpu"],
        ]
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(columns, *lines, strict=True)]
    show = "  ".join(f"{{:<{width}}}" for width in widths)
    click.echo(show.format(*columns).rstrip())
    for row, line in zip(rows, lines, strict=True):
        click.echo(show.format(*line).rstrip())
        click.echo(f"  {row['use']}")
        if gpu is not None:
            click.echo(f"  {gpu}: {_verdict(row)}")
    click.echo("\nSIZE: the quantized linears, as part of their bfloat16 weights.")
    click.echo("GPU: SM 80 is Ampere, 89 Ada, 90 Hopper, 100 and 120 Blackwell.")


def _generations(row: dict[str, Any]) -> str:
    if row["refused_sm"] is None:
        return f"SM {row['min_sm']}+"
    first, last = row["refused_sm"]
    return f"SM {row['min_sm']}-{first - 1}, {last + 1}+"


def _verdict(row: dict[str, Any]) -> str:
    if not row["runs"]:
        return f"no, {row['why_not']}"
    return "yes" if row["tested"] else "perhaps: NVIDIA's hardware matrix doesn't list it"
