"""What `trtbuild migrate` reads of a Triton repository, and how it shows what became of fields."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from builder.errors import ArtifactError
from trtbuild import report_table
from trtbuild.report_table import Row

if TYPE_CHECKING:
    from builder.manifest import Manifest
    from builder.migrate import Migration
    from builder.migrate.row import Outcome

_ENGINE_MODEL = "tensorrt_llm/config.pbtxt"


def parameters(repository: Path) -> dict[str, str]:
    """The parameters of a repository's engine model; placeholders that nobody filled are left out.

    Raises ArtifactError where there is none.
    """
    from triton_repo.models.pbtxt import from_text

    path = repository / _ENGINE_MODEL
    try:
        config = from_text(path.read_text())
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{repository} has no engine model",
            found=f"{_ENGINE_MODEL}: {getattr(error, 'strerror', None) or error}",
            do="give the folder of a Triton model repository",
        ) from error
    values = {name: each.string_value for name, each in sorted(config.parameters.items())}
    return {name: value for name, value in values.items() if not value.startswith("${")}


def show_migration(
    migration: Migration, out: Path | None, made: Manifest | None, *, as_json: bool
) -> None:
    """Print what became of every field, and what was written."""
    if as_json:
        click.echo(json.dumps(_report(migration, out, made), indent=2))
        return
    from builder.migrate.row import Fate

    kept, lost = migration.with_fate(Fate.KEPT), migration.with_fate(Fate.LOST)
    rows = [Row(state="kept", cells=(_old(each), _new(each))) for each in kept]
    rows += [Row(state="lost", cells=(_old(each), ""), do=each.text) for each in lost]
    report_table.show(("the engine", "the LLM API"), rows)
    for fate in (Fate.UNNEEDED, Fate.UNUSED):
        _show_rest(fate.value, migration.with_fate(fate))
    notes = migration.resolved.notes
    click.echo("".join(f"\nnote: {note}" for note in notes))
    click.echo(f"{len(kept)} kept, {len(lost)} lost{': see what to do' if lost else ''}")
    if made is not None and out is not None:
        click.echo(f"engine: {out} ({made.about['architecture']}, for TensorRT-LLM's LLM API)")


def _old(outcome: Outcome) -> str:
    return f"{outcome.field.partition('.')[2]} = {_word(outcome.value)}"


def _new(outcome: Outcome) -> str:
    new = f"{outcome.setting} = {_word(outcome.to)}"
    return f"{new} ({outcome.text})" if outcome.text else new


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _show_rest(title: str, outcomes: Iterable[Outcome]) -> None:
    """The fields that nothing is to be done about: a paragraph for each reason."""
    reasons: dict[str, list[str]] = {}
    for each in outcomes:
        reasons.setdefault(each.text, []).append(each.field.rpartition(".")[2])
    for text, names in reasons.items():
        click.echo(f"\n{title}{': ' * bool(text)}{text}\n  {', '.join(names)}")


def _report(migration: Migration, out: Path | None, made: Manifest | None) -> dict[str, Any]:
    return {
        "path": str(out) if made is not None else None,
        "name": migration.name,
        "settings": migration.resolved.settings,
        "notes": migration.resolved.notes,
        "fields": [
            {**asdict(outcome), "fate": outcome.fate.value} for outcome in migration.outcomes
        ],
    }
