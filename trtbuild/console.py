"""What commands show: results on stdout, progress and events on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import click

from builder.manifest import NAME, Manifest
from builder.progress import Progress, silent

if TYPE_CHECKING:
    from rich.console import Console


@contextmanager
def progress_bar(label: str) -> Iterator[Progress]:
    """A progress bar on stderr while the body runs; nothing where stderr isn't a terminal."""
    if not sys.stderr.isatty():
        yield silent
        return
    from rich.progress import (
        BarColumn,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    times = (TimeElapsedColumn(), TimeRemainingColumn())
    with Bar(*columns, *times, console=_console(), transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@cache
def _console() -> Console:
    """The terminal; what is printed through it stands above a bar that is shown there."""
    from rich.console import Console

    return Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)


def stage(
    label: str, out: Path, step: Callable[[Progress], Manifest], *, as_json: bool = False
) -> None:
    """Run a stage that writes the artifact `out`, and say what came of it."""
    before = _stamp(out)
    with progress_bar(label) as progress:
        manifest = step(progress)
    report(out, manifest, as_json=as_json, kept=before is not None and before == _stamp(out))


def report(path: Path, manifest: Manifest, *, as_json: bool, kept: bool = False) -> None:
    """Say what an artifact is: a line, or everything as JSON."""
    if as_json:
        click.echo(json.dumps({"path": str(path), **asdict(manifest)}, indent=2))
        return
    facts = [str(manifest.about[key]) for key in ("architecture", "dtype") if key in manifest.about]
    facts += [f"{manifest.size_bytes / 1e6:,.0f} MB", *(["already there"] if kept else [])]
    click.echo(f"{manifest.kind}: {path} ({', '.join(facts)})")


def _stamp(artifact: Path) -> tuple[int, int] | None:
    """What changes when an artifact is written anew."""
    path = artifact / NAME
    return (path.stat().st_ino, path.stat().st_mtime_ns) if path.is_file() else None


def say(line: str) -> None:
    """An event, on stderr."""
    if sys.stderr.isatty():
        _console().print(line)
    else:
        click.echo(line, err=True)
