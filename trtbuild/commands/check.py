"""`trtbuild check`: whether an artifact is whole, and whether an engine fits where it is to run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

    A TensorRT-LLM engine, also each in a repository, is compared with this machine, or with a
    container or a GPU; all that doesn't fit is listed, each with what mends it.
    """
    from builder.fit.place import place

    kind, engines = _look(folder)
    if not engines and (container or gpu):
        raise click.UsageError("--container and --gpu are for TensorRT-LLM engines.")
    where = place(container=container, gpu=gpu) if engines else None
    alone = engines == (folder,)
    if not alone:
        _require_whole(folder, kind)
    found = [_compare(engine, where, deep=alone) for engine in engines]
    if as_json:
        click.echo(json.dumps(_report(folder, kind, found), indent=2 if found else None))
    else:
        click.echo(f"{kind}: {folder} {_WHOLE[found[0].whole if alone else True]}")
        for each in found:
            if len(found) > 1:
                click.echo(f"\n{each.engine.relative_to(folder)}:")
            _print(each)
    for each in found:
        if each.problems:
            whats = ", ".join(problem.what for problem in each.problems)
            raise ArtifactError(
                f"{each.engine} doesn't fit {each.place}",
                found=whats,
                do="do what is listed for each",
            )


def _report(folder: Path, kind: str, found: Sequence[Comparison]) -> dict[str, Any]:
    """An engine's comparison beside the rest; those of several are under `engines`."""
    report = {"path": str(folder), "kind": kind, "whole": True}
    fits = [{**asdict(each), "engine": str(each.engine), "fits": each.fits} for each in found]
    return {**report, "engines": fits} if len(fits) > 1 else {**report, **dict(*fits)}


def _compare(engine: Path, where: Place | None, *, deep: bool) -> Comparison:
    from builder.fit import compare

    with console.progress_bar("check") as progress:
        return compare(engine, where, deep=deep, progress=progress)


def _look(folder: Path) -> tuple[str, tuple[Path, ...]]:
    """The kind of an artifact, and the TensorRT-LLM engines in it."""
    from builder import manifest
    from builder.fit import is_engine

    found = manifest.read(folder) if (folder / manifest.NAME).is_file() else None
    if is_engine(folder):
        return "engine", (folder,)
    if found and found.kind == "repository":
        return found.kind, tuple(filter(is_engine, _served(folder)))
    return found.kind if found else "checkpoint", ()


def _served(repository: Path) -> Iterator[Path]:
    """The engines of a repository, each with the one that drafts for it."""
    from triton_repo.layout import describe

    for engine in describe(repository).engines:
        model, version = engine.engine_dir.parent.name, engine.engine_dir.name
        for name in filter(None, (model, engine.models.get("draft"))):
            yield repository / name / version


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
