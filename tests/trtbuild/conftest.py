"""What tests of several commands are given."""

from __future__ import annotations

from pathlib import Path

import pytest
from stand_in_machine import StandInMachine


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandInMachine:
    """One with nothing yet."""
    machine = StandInMachine(tmp_path / "machine")
    machine.stand_in(monkeypatch)
    return machine
