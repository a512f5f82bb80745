"""A plan as people read it: a drawn table on a terminal, plain lines when piped."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import click

from builder.limits import kv_bytes_per_token, window_tokens
from builder.mapping import Layout
from builder.memory import gib
from builder.roofline import COMPUTE_EFFICIENCY, LINK_EFFICIENCY, MEMORY_EFFICIENCY
from trtbuild.planning.candidates import Candidate, Plan
from trtbuild.planning.recommend import Recommendation, shown

COLUMNS = (
    "GPU",
    "recipe",
    "layout",
    "weights",
    "activ.",
    "KV cache",
    "KV tokens",
    "requests",
    "tok/s of 1",
    "tok/s of all",
    "TTFT",
)


def show(plan: Plan, best: Recommendation | None, *, everything: bool) -> None:
    """Print the plan on stdout; `everything` is every layout, not the smallest that fits."""
    for line in _head(plan):
        click.echo(line)
    rows = list(plan.candidates) if everything else shown(plan, best)
    lines = [_cells(each, best is not None and each == best.candidate) for each in rows]
    if lines:
        click.echo()
        if not (sys.stdout.isatty() and _drawn(lines)):
            _write(lines)
    click.echo()
    for line in (*_left_out(plan, everything=everything), *_foot(plan, best, lines)):
        click.echo(line)


def _head(plan: Plan) -> Iterator[str]:
    subject, wish = plan.subject, plan.wish
    cache = {"kv_cache_quant_algo": wish.kv_cache.upper()}
    config = subject.checkpoint(Layout(), subject.quantized or cache)
    layers = range(config["num_hidden_layers"])
    yield f"{subject.name}: {config['architecture']}, {len(layers)} layers, {subject.kind}"
    yield (
        f"requests of {wish.input_len} + {wish.output_len} tokens, up to {wish.max_batch_size} at"
        f" once, {wish.max_num_tokens} tokens a step"
    )
    size = kv_bytes_per_token({**config, "mapping": {}})
    windows = [window for window in (window_tokens(config, n) for n in layers) if window]
    forget = f"; {len(windows)} layers keep the last {max(windows)} only" if windows else ""
    yield f"a token takes {size:,} bytes of KV cache over all layers{forget}"


def layout(found: Layout) -> str:
    """A layout in a word or two."""
    if found.world_size == 1:
        return "1 GPU"
    sizes = {"tp": found.tp, "pp": found.pp, "cp": found.cp}
    parts = [f"{name} {size}" for name, size in sizes.items() if size > 1]
    return " x ".join(parts) + (f", ep {found.moe_ep}" if found.moe_ep > 1 else "")


def _cells(each: Candidate, best: bool) -> tuple[str, ...]:
    memory = each.memory
    head = (("* " if best else "  ") + each.gpu.name, each.choice.name, layout(each.layout))
    sizes = (gib(memory.weights_bytes), gib(memory.activation_bytes))
    if not each.fits:
        why = "too little for one request" if memory.kv_cache_tokens else "doesn't fit"
        return (*head, *sizes, why, f"{memory.kv_cache_tokens:,}", "0", "", "", "")
    cache = (gib(memory.kv_cache_bytes), f"{memory.kv_cache_tokens:,}", str(each.batch_size))
    if each.alone is None or each.full is None:
        return (*head, *sizes, *cache, "", "", "")
    speeds = (f"{each.alone.decode_tokens_s:,.0f}", f"{each.full.decode_tokens_s:,.0f}")
    return (*head, *sizes, *cache, *speeds, f"{each.full.ttft_ms:,.0f} ms")


def _write(lines: Sequence[tuple[str, ...]]) -> None:
    columns = ("  " + COLUMNS[0], *COLUMNS[1:])
    widths = [max(map(len, column)) for column in zip(columns, *lines, strict=True)]
    for line in (columns, *lines):
        cells = zip(line, widths, _RIGHT, strict=True)
        padded = (f"{c:>{w}}" if right else f"{c:<{w}}" for c, w, right in cells)
        click.echo("  ".join(padded).rstrip())


_RIGHT = (False, False, False, *(True for _ in COLUMNS[3:]))


def _drawn(lines: Sequence[tuple[str, ...]]) -> bool:
    """Draw a table, unless the terminal is narrower: it would cut digits."""
    from rich.console import Console
    from rich.table import Table

    table = Table(header_style="bold")
    for name, right in zip(COLUMNS, _RIGHT, strict=True):
        table.add_column(name, justify="right" if right else "left", no_wrap=not right)
    for line in lines:
        style = "bold green" if line[0].startswith("*") else "dim" if line[7] == "0" else None
        table.add_row(*line, style=style)
    console = Console()
    if Console(width=1000).measure(table).maximum > console.width:
        return False
    console.print(table)
    return True


def _left_out(plan: Plan, *, everything: bool) -> Iterator[str]:
    """Recipes that a GPU can't run, and with `everything` layouts that can't be."""
    seen = {(each.gpu.name, each.choice.name) for each in plan.candidates}
    recipes: dict[tuple[str, str], list[str]] = {}
    for each in plan.left_out:
        if everything or (each.gpu, each.recipe) not in seen:
            seen.add((each.gpu, each.recipe))
            place = each.gpu if each.layout is None else f"{each.gpu}, {layout(each.layout)}"
            recipes.setdefault((place, each.why), []).append(each.recipe)
    places: dict[tuple[str, str], list[str]] = {}
    for (place, why), names in recipes.items():
        places.setdefault((", ".join(names), why), []).append(place)
    for (left, why), where in places.items():
        yield f"left out on {'; '.join(where)}: {left}: {why}"


def _foot(plan: Plan, best: Recommendation | None, lines: Sequence[object]) -> Iterator[str]:
    if best is None:
        yield _misfit(plan)
    else:
        chosen = best.candidate
        yield f"recommended: {chosen.choice.name} on {chosen.gpu.name}, {layout(chosen.layout)}"
        yield from (f"  {part}" for part in best.reason.split("; "))
        if plan.wish.kv_cache == "none" and chosen.choice.fp8_cache(chosen.gpu):
            yield "  with --kv-cache fp8 the same memory holds twice the tokens"
    if lines:
        yield ""
        yield "GiB are of each GPU; tokens, requests and tokens/s of one engine, while it decodes"
        yield "weights and KV cache are counted; activations are an upper estimate, not measured"
        if plan.subject.layout and plan.subject.layout.cp > 1:
            yield "context-parallel ranks (cp) aren't estimated: each counts as if it did all alone"
        yield (
            f"speeds are a roofline estimate, at {MEMORY_EFFICIENCY:.0%} of the memory's bandwidth,"
            f" {COMPUTE_EFFICIENCY:.0%} of the dense FLOP/s and {LINK_EFFICIENCY:.0%} of the links'"
        )


def _misfit(plan: Plan) -> str:
    if not plan.candidates:
        return "nothing runs there, for the reasons above"
    least = min(plan.candidates, key=lambda each: each.memory.weights_bytes)
    size = f"{gib(least.memory.weights_bytes)} of weights on each"
    return (
        f"nothing fits (the least is {size}: {least.choice.name}, {layout(least.layout)}):"
        " name a larger GPU, raise --max-gpus or shorten the requests"
    )
