"""Promise: `trtbuild keys new` makes a key that the endpoint takes, and keeps nothing of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from builder.errors import TrtbuildError
from server.auth.keys import Keys, read_file
from trtbuild.commands.keys import keys


def new(*arguments: object) -> Result:
    return CliRunner().invoke(keys, ["new", *map(str, arguments)], catch_exceptions=False)


def test_stdout_is_the_files_part_and_the_key_is_beside_it(tmp_path: Path) -> None:
    limits = ("--requests-per-minute", 5, "--tokens-per-minute", 9, "--max-in-flight", 2)
    made = new('Bob "B" Ü', "--model", "a", "--model", "b", *limits)
    secret = made.stderr.split()[-1]
    assert secret not in made.stdout
    path = tmp_path / "keys.toml"
    path.write_text(made.stdout)
    key = Keys(read_file(path)).find(secret)
    assert key is not None
    assert (key.name, key.models, key.admin) == ('Bob "B" Ü', {"a", "b"}, False)
    assert (key.requests_per_minute, key.tokens_per_minute, key.max_in_flight) == (5, 9, 2)


def test_keys_are_added_to_a_file_each_name_once(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.touch()
    secrets = [new("bob", "--append", path), new("boss", "--admin", "--append", path)]
    before = path.read_text()
    with pytest.raises(TrtbuildError, match="one name"):
        new("bob", "--append", path)
    assert path.read_text() == before
    found = Keys(read_file(path))
    named = [found.find(made.stdout.strip()) for made in secrets]
    assert [(key.name, key.admin) for key in named if key] == [("bob", False), ("boss", True)]


def test_a_name_that_cant_be_seen_is_refused() -> None:
    assert new("a\nb").exit_code == 2
