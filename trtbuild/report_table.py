"""Reports on stdout: a drawn table on a terminal, plain lines when piped."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import click

STYLES = {"ok": "green", "yes": "green", "warning": "yellow", "problem": "red", "no": "red"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of a report: its name or how it stands (a key of STYLES), its cells, what to do."""

    state: str
    cells: tuple[str, ...]
    do: str = ""


def show(columns: Sequence[str], rows: Sequence[Row]) -> None:
    """Print rows under `columns`, the names of the cells."""
    if not rows:
        return
    if sys.stdout.isatty():
        _draw(columns, rows)
        return
    lines = [(row.state, *row.cells) for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    margin = sum(widths[:-1]) + 2 * (len(widths) - 1)
    for row, line in zip(rows, lines, strict=True):
        padded = (f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(padded).rstrip())
        if row.do:
            click.echo(f"{'':{margin}}→ {row.do}")


def _draw(columns: Sequence[str], rows: Sequence[Row]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(header_style="bold")
    to_do = any(row.do for row in rows)
    for column in ("", *columns, *(["to do"] if to_do else [])):
        table.add_column(column, overflow="fold")
    for row in rows:
        state = Text(row.state, STYLES.get(row.state, ""))
        table.add_row(state, *map(Text, row.cells), *([Text(row.do)] if to_do else []))
    Console().print(table)
