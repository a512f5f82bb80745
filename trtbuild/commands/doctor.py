"""`trtbuild doctor`: what this machine can do, and what it lacks for the rest."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from trtbuild import options

if TYPE_CHECKING:
    from builder.machine.finding import Target
    from trtbuild.diagnosis import Diagnosis


@click.command()
@options.as_json
@click.pass_context
def doctor(context: click.Context, as_json: bool) -> None:
    """Say what this machine can build and serve, and what to do to get the rest.

    Exits 1 where it can make no engine and serve nothing.
    """
    from trtbuild.diagnosis import diagnose

    found = diagnose()
    if as_json:
        click.echo(json.dumps({"possible": found.possible, **asdict(found)}, indent=2))
    else:
        _print(found)
    context.exit(0 if found.possible else 1)


def _print(found: Diagnosis) -> None:
    from trtbuild.report_table import Row, show

    show(
        ("part", "found"),
        [
            Row(state=each.level, cells=(each.name, each.found), do=each.do)
            for each in found.findings
        ],
    )
    click.echo()
    targets = [Row(state=_state(each), cells=(each.name,), do=each.do) for each in found.targets]
    show(("target",), targets)


def _state(target: Target) -> str:
    return "yes" if target.serves else "builds" if target.builds else "no"
