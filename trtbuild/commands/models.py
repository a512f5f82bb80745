"""`trtbuild models`: what a running Triton has loaded, and having it load, unload or replace."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from builder.errors import LaunchError
from trtbuild import console, options, triton_options

if TYPE_CHECKING:
    from triton_repo.control.client import Control

_REPOSITORY = click.argument("repository", type=options.FOLDER)
_NAMES = click.argument("names", nargs=-1)
_TIMEOUT = click.option(
    "--timeout",
    type=options.SECONDS,
    default=600,
    show_default=True,
    help="Seconds that a model may take to load.",
)


@click.group()
def models() -> None:
    """The models of a Triton that trtbuild serve runs on this machine."""


@models.command("list")
@_REPOSITORY
@triton_options.log
@options.as_json
def list_models(repository: Path, log: Path | None, as_json: bool) -> None:
    """List the models of REPOSITORY: their state, and why one isn't ready."""
    index = _control(repository, log).index()
    if as_json:
        click.echo(json.dumps([asdict(each) for each in index], indent=2))
        return
    width = max((len(each.name) for each in index), default=0)
    for each in index:
        reason = f"  {' '.join(each.reason.split())}" if each.reason else ""
        click.echo(f"{each.name:{width}}  {each.version or '-':>3}  {each.state.lower()}{reason}")


@models.command()
@_REPOSITORY
@_NAMES
@_TIMEOUT
@triton_options.log
def load(repository: Path, names: tuple[str, ...], timeout: float, log: Path | None) -> None:
    """Load the models NAMES of REPOSITORY; an engine's name stands for all of its models.

    One that is loaded is loaded anew where its files have changed. By default all.
    """
    from triton_repo.control.sets import load_order

    control = _control(repository, log, timeout)
    for model in load_order(repository, names):
        control.load(model)
        console.say(f"{model} is loaded")


@models.command()
@_REPOSITORY
@_NAMES
@click.option(
    "--drain",
    type=options.SECONDS_OR_NONE,
    default=60,
    show_default=True,
    help="Seconds to wait for their last requests.",
)
@triton_options.log
def unload(repository: Path, names: tuple[str, ...], drain: float, log: Path | None) -> None:
    """Unload the models NAMES of REPOSITORY; an engine's name stands for all of its models.

    They take no more requests; those under way finish, also after --drain. A restart of Triton
    loads all models again. By default all.
    """
    from triton_repo.control.drain import WHY, listed
    from triton_repo.control.drain import drain as wait
    from triton_repo.control.sets import load_order

    control = _control(repository, log)
    models = list(reversed(load_order(repository, names)))
    for model in models:
        control.unload(model)
    left = wait(control, lambda each: each.name in models, limit_s=drain, say=console.say)
    for model in models:
        if model not in {each.name for each in left}:
            console.say(f"{model} is unloaded")
    if left:
        raise LaunchError(
            f"after {drain:g} s models are still in memory",
            found=listed(left),
            do=f"wait, or start Triton again: {WHY}",
        )


@models.command()
@_REPOSITORY
@click.argument("engine", type=options.FOLDER)
@click.option("--name", help="Of several engines the one to replace; by default the first.")
@click.option(
    "--drain",
    type=options.SECONDS_OR_NONE,
    default=600,
    show_default=True,
    help="Seconds to wait for the old engine's last requests before its files are removed.",
)
@_TIMEOUT
@triton_options.log
@options.as_json
def swap(
    repository: Path,
    engine: Path,
    name: str | None,
    drain: float,
    timeout: float,
    log: Path | None,
    as_json: bool,
) -> None:
    """Serve ENGINE in the place of REPOSITORY's engine, without losing a request.

    Tokenizer, tensors and target must be the same, and no limit lower. Where the new engine
    doesn't load, the old one goes on.
    """
    from triton_repo.control.swap import swap as swap_engine

    with console.progress_bar("swap") as progress:
        done = swap_engine(
            repository,
            engine,
            _control(repository, log, timeout),
            name=name,
            drain_s=drain,
            say=console.say,
            progress=progress,
        )
    if as_json:
        click.echo(json.dumps({**asdict(done), "engine": str(done.engine)}, indent=2))
    else:
        click.echo(f"{done.name}: version {done.version} serves, after {done.seconds:.1f} s")


@models.command()
@_REPOSITORY
@click.option(
    "--timeout",
    type=options.SECONDS,
    default=60,
    show_default=True,
    help="Seconds that a token may take.",
)
@triton_options.log
@options.as_json
def probe(repository: Path, timeout: float, log: Path | None, as_json: bool) -> None:
    """Have each engine of REPOSITORY generate a token: fails where one doesn't.

    Triton calls a model ready that hangs; a container's health check can ask here instead.
    """
    from triton_repo.control import access
    from triton_repo.launch.probe import ask
    from triton_repo.launch.triton import default_log
    from triton_repo.served import describe
    from trtbuild.launching import probe_requests

    served = describe(repository)
    address = access.read(log or default_log(repository)).http_address
    taken = {
        model: round(ask(address, model, request, timeout) * 1_000, 1)
        for model, request in probe_requests(served).items()
    }
    if as_json:
        click.echo(json.dumps({"probe_ms": taken}, indent=2))
        return
    for model, took_ms in taken.items():
        click.echo(f"{model}: a token in {took_ms:g} ms")


def _control(repository: Path, log: Path | None, timeout_s: float = 600) -> Control:
    from triton_repo.control import access
    from triton_repo.control.client import Control
    from triton_repo.launch.triton import default_log

    return Control(access.read(log or default_log(repository)), timeout_s=timeout_s)
