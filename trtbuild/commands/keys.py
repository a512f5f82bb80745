"""`trtbuild keys`: API keys for the endpoint, of which only digests are kept."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trtbuild.options import COUNT, FILE_TO_WRITE

if TYPE_CHECKING:
    from server.auth.key import ApiKey


@click.group()
def keys() -> None:
    """API keys for the endpoint."""


@keys.command()
@click.argument("name")
@click.option(
    "--model",
    "models",
    multiple=True,
    help="A model that it may use, of several each; by default all.",
)
@click.option("--requests-per-minute", type=COUNT, help="Requests a minute; by default no limit.")
@click.option(
    "--tokens-per-minute",
    type=COUNT,
    help="Tokens a minute, read and written; by default no limit.",
)
@click.option("--max-in-flight", type=COUNT, help="Requests at once; by default no limit.")
@click.option("--admin", is_flag=True, help="The key is for the admin routes alone.")
@click.option(
    "--append", type=FILE_TO_WRITE, help="File that the digest is added to; the key isn't kept."
)
def new(
    name: str,
    models: tuple[str, ...],
    requests_per_minute: int | None,
    tokens_per_minute: int | None,
    max_in_flight: int | None,
    admin: bool,
    append: Path | None,
) -> None:
    """Make a key for NAME. It is shown once: nothing has it afterwards but its owner."""
    from server.auth.key import ApiKey, digest, new_key
    from server.auth.keys import Keys, read_file

    secret = new_key()
    key = ApiKey(
        name=name,
        sha256=digest(secret),
        models=frozenset(models) or None,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        max_in_flight=max_in_flight,
        admin=admin,
    )
    if not (0 < len(name) <= 100 and name.isprintable()):
        raise click.BadParameter(f"{name!r} is not a name of 1 to 100 characters that can be seen")
    if append and append.exists():
        Keys((*read_file(append), key))  # the name is new
    stanza = _stanza(key)
    if append:
        with append.open("a") as file:
            file.write(f"\n{stanza}\n")
        click.echo(secret)
    else:
        # so that stdout can go to the file
        click.echo(f"key: {secret}", err=True)
        click.echo(stanza)


def _stanza(key: ApiKey) -> str:
    """The key's table of the file. JSON's strings, numbers and lists are TOML's too."""
    values = {
        name: sorted(value) if isinstance(value, frozenset) else value
        for name, value in asdict(key).items()
        if value is not None and value is not False
    }
    lines = (f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in values.items())
    return "\n".join(["[[keys]]", *lines])
