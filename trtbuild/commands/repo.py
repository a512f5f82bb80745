"""`trtbuild repo`: engines into a Triton model repository; `trtbuild repo check`: what is wrong in
one."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trtbuild import console, options, repo_options

if TYPE_CHECKING:
    from triton_repo.lint import Finding
    from triton_repo.parts import Part


@click.command(cls=repo_options.SettingsCommand)
@click.argument("engine", type=options.FOLDER, nargs=-1, required=True)
@options.out
@click.option(
    "--name",
    "names",
    multiple=True,
    help="The served model's name; by default the engine's own. Once for each of several engines.",
)
@click.option(
    "--draft",
    multiple=True,
    metavar="[NAME:]ENGINE",
    help="An engine that drafts for it.",
)
@click.option(
    "--lora",
    multiple=True,
    metavar="[NAME:][ADAPTER=]DIR",
    help="A LoRA adapter's folder, loaded at the start; may be repeated. Ids count from 1.",
)
@click.option(
    "--set",
    "words",
    multiple=True,
    metavar="[NAME:]SETTING=VALUE",
    help="Any setting by upstream's name, of one engine (NAME_draft: its draft) or of all; may be"
    " repeated, and beats the options.",
)
@options.as_json
@repo_options.settings
def repo(
    engine: tuple[Path, ...],
    out: Path,
    names: tuple[str, ...],
    draft: tuple[str, ...],
    lora: tuple[str, ...],
    words: tuple[str, ...],
    as_json: bool,
    **settings: Any,
) -> None:
    """Write the Triton model repository of ENGINE, or of several.

    Several have a set of models each, called NAME_ensemble and so on. Settings are those of
    upstream's templates; what an engine can't honour is refused.

    `trtbuild repo check REPO` says what is wrong in a repository, whoever made it (a folder called
    check is ./check).
    """
    from triton_repo.layout import write_parts

    parts = _parts(engine, names, draft, lora, words, repo_options.given(settings))
    console.stage(
        "repo",
        out,
        lambda progress: write_parts(parts, out, progress=progress, note=console.say),
        as_json=as_json,
    )


def _parts(
    engines: tuple[Path, ...],
    names: tuple[str, ...],
    drafts: tuple[str, ...],
    lora: tuple[str, ...],
    words: tuple[str, ...],
    settings: dict[str, Any],
) -> list[Part]:
    from triton_repo.parts import DRAFT, Part, name_of
    from triton_repo.settings.options import RepositoryOptions, with_words

    if names and len(names) != len(engines):
        raise click.UsageError(f"{len(engines)} engines need as many --name, not {len(names)}.")
    called = [names[i] if names else name_of(path) for i, path in enumerate(engines)]
    known = [*called, *(f"{name}{DRAFT}" for name in called)]
    base = RepositoryOptions(**settings)
    for_drafts = {repo_options.addressed(word, known).engine for word in words} - {*called}
    parts = []
    for path, name in zip(engines, called, strict=True):
        own = repo_options.of_one("--draft", drafts, name, called)
        if len(own) > 1:
            raise click.UsageError(f"--draft {own[1]}: an engine has one draft.")
        if not own and f"{name}{DRAFT}" in for_drafts:
            raise click.UsageError(f"--set {name}{DRAFT}:…: {name} has no --draft.")
        parts.append(
            Part(
                engine=path,
                name=name,
                options=with_words(base, repo_options.pairs(words, name, known)),
                adapters=repo_options.adapters(repo_options.of_one("--lora", lora, name, called)),
                draft=Path(own[0]) if own else None,
                draft_options=with_words(
                    RepositoryOptions(),
                    repo_options.pairs(words, f"{name}{DRAFT}", known, common=False),
                ),
            )
        )
    return parts


@click.command()
@click.argument("repository", type=options.FOLDER)
@options.as_json
def check(repository: Path, as_json: bool) -> None:
    """Say all that is wrong in REPOSITORY, whoever made it; exit 1 where there are errors."""
    from triton_repo.lint import ERROR, lint

    with console.progress_bar("check"):
        findings = lint(repository)
    errors = sum(each.severity == ERROR for each in findings)
    if as_json:
        found = [asdict(each) for each in findings]
        report = {"path": str(repository), "errors": errors, "findings": found}
        click.echo(json.dumps(report, indent=2))
    else:
        _print(repository, findings, errors)
    if errors:
        click.get_current_context().exit(1)


def _print(repository: Path, findings: tuple[Finding, ...], errors: int) -> None:
    from trtbuild.report_table import Row, show

    verdict = f"{errors} errors, {len(findings) - errors} warnings" if findings else "nothing wrong"
    click.echo(f"repository: {repository}: {verdict}")
    rows = [
        Row(
            state="problem" if each.severity == "error" else each.severity,
            cells=(" ".join(filter(None, (each.file, each.field))), each.found),
            do=each.do,
        )
        for each in findings
    ]
    show(("where", "found"), rows)


repo.beside = {"check": check}
