"""`trtbuild check`: whether an artifact is whole, and whether an engine fits where it is to run."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from builder.errors import ArtifactError
from trtbuild import console, options

if TYPE_CHECKING:
    from builder.fit import Comparison
    from builder.fit.place import Place


_WHOLE = {True: "is whole", False: "is damaged", None: "has all its ranks"}
_FITS = {
    True: "it fits",
    False: "it doesn't fit",
    None: "not everything could be compared; nothing found against",
}


@click.command()
@click.argument("folder", type=options.FOLDER)
@click.option(
    "--container",
    metavar="IMAGE",
    help="Compare a TensorRT-LLM engine with an image (or its tag: 26.07), not what is installed.",
)
@click.option("--gpu", help="Compare it with a GPU that isn't here: H100, RTX 4090, sm89, …")
@options.as_json
def check(folder: Path, container: str | None, gpu: str | None, as_json: bool) -> None:
    """Read the artifact in FOLDER back, every byte, and name the first thing that is wrong.

    A TensorRT-LLM engine, also in a repository, is compared with this machine, or with a container
    or a GPU; all that doesn't fit is listed, each with what mends it.
    """
    from builder.fit.place import place

    kind, engine = _look(folder)
    if engine is None and (container or gpu):
        raise click.UsageError("--container and --gpu are for TensorRT-LLM engines.")
    where = place(container=container, gpu=gpu) if engine else None
    if engine != folder:
        _require_whole(folder, kind)
    found = _compare(engine, where, deep=engine == folder) if engine else None
    if as_json:
        report = {"path": str(folder), "kind": kind, "whole": True}
        fit = {**asdict(found), "engine": str(engine), "fits": found.fits} if found else {}
        click.echo(json.dumps({**report, **fit}, indent=2 if found else None))
    else:
        click.echo(f"{kind}: {folder} {_WHOLE[found.whole if found else True]}")
        if found:
            _print(found)
    if found and found.problems:
        whats = ", ".join(each.what for each in found.problems)
        raise ArtifactError(
            f"{engine} doesn't fit {found.place}", found=whats, do="do what is listed for each"
        )


def _compare(engine: Path, where: Place | None, *, deep: bool) -> Comparison:
    from builder.fit import compare

    with console.progress_bar("check") as progress:
        return compare(engine, where, deep=deep, progress=progress)


def _look(folder: Path) -> tuple[str, Path | None]:
    """The kind of an artifact, and the TensorRT-LLM engine in it."""
    from builder import manifest
    from builder.fit import is_engine
    from triton_repo.engine import ENGINE_DIR

    found = manifest.read(folder) if (folder / manifest.NAME).is_file() else None
    if is_engine(folder):
        return "engine", folder
    inner = folder / ENGINE_DIR
    if found and found.kind == "repository" and is_engine(inner):
        return found.kind, inner
    return found.kind if found else "checkpoint", None


def _require_whole(folder: Path, kind: str) -> None:
    from builder import artifact, checkpoint_check, manifest
    from triton_repo import layout

    with console.progress_bar("check") as progress:
        if kind == "checkpoint":
            checkpoint_check.check(folder, progress)
        elif kind == "repository":
            layout.check(folder)
        else:
            artifact.verify(folder, manifest.read(folder))


def _print(found: Comparison) -> None:
    from trtbuild.report_table import Row, show

    click.echo(f"{_FITS[found.fits]} {found.place}")
    rows = [
        Row(
            state="problem" if each.fatal else "warning",
            cells=(each.what, f"{each.engine}; found {each.found}"),
            do=each.do,
        )
        for each in found.mismatches
    ]
    for why in dict.fromkeys(each.why for each in found.unknown):
        whats = ", ".join(each.what for each in found.unknown if each.why == why)
        rows.append(Row(state="unknown", cells=(whats, why)))
    rows += [Row(state="ok", cells=(each.what, each.value)) for each in found.agreements]
    show(("what", "found"), rows)
    for command in dict.fromkeys(filter(None, (each.command for each in found.mismatches))):
        click.echo(f"\nto make it anew:\n  {command}")
