"""`trtbuild migrate`: an engine's limits and features for TensorRT-LLM without engines."""

from __future__ import annotations

from pathlib import Path

import click

from trtbuild import migration, options
from trtbuild.target_options import FOR_BUILD

_COPY, _SET = (
    next(option for option in FOR_BUILD if option.flag == flag) for flag in ("--copy", "--set")
)


@click.command()
@click.argument("engine", type=options.FOLDER)
@click.option("-o", "--out", type=options.FOLDER, help="Folder to write.")
@click.option(
    "--model",
    type=options.FOLDER,
    required=True,
    help="The Hugging Face folder that the engine was made from, or its quantized form.",
)
@click.option("--repo", type=options.FOLDER, help="Carry over its Triton parameters too.")
@click.option("--dry-run", is_flag=True, help="Say what would become of it; write nothing.")
@_SET.added_to
@_COPY.added_to
@options.name
@options.as_json
def migrate(
    engine: Path,
    out: Path | None,
    model: Path,
    repo: Path | None,
    dry_run: bool,
    set: dict[str, str],
    copy: bool,
    name: str | None,
    as_json: bool,
) -> None:
    """Make of ENGINE a folder for TensorRT-LLM 1.3, which has no engines, and say what is lost."""
    from builder.migrate import migrate as run
    from builder.migrate import plan

    if out is None and not dry_run:
        raise click.UsageError("Missing option '-o' / '--out' (or --dry-run).")
    parameters = migration.parameters(repo) if repo else None
    found = plan(engine, model, parameters=parameters, settings=set, copy=copy, name=name)
    made = None if dry_run or out is None else run(found, out)
    migration.show_migration(found, out, made, as_json=as_json)
