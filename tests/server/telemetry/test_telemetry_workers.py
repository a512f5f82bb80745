"""Promise: any worker tells of all, and what a dead one has counted stays counted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from exposed import Series, config, series, value

from server.telemetry import Metrics, RequestMeter
from server.telemetry.board import Board
from server.telemetry.instruments import IN_FLIGHT, PROMPT_TOKENS, TTFT
from server.telemetry.tally import Tally

WORKER = """
import sys
from pathlib import Path
from server.telemetry.board import Board
from server.telemetry.instruments import IN_FLIGHT, PROMPT_TOKENS
from server.telemetry.tally import Tally
board = Board(Path(sys.argv[1]))
tally = Tally()
tally.add(PROMPT_TOKENS, "m", amount=5)
tally.add(IN_FLIGHT, "m")
board.post(tally)
print("posted", flush=True)
sys.stdin.read()
"""


def prompt(tokens: int, in_flight: int = 0) -> Tally:
    tally = Tally()
    tally.add(PROMPT_TOKENS, "m", amount=tokens)
    tally.add(IN_FLIGHT, "m", amount=in_flight)
    tally.distribution(TTFT, "m").observe(tokens)
    return tally


def told(found: Series) -> tuple[Any, Any, Any]:
    """Prompt tokens, requests in flight, workers."""
    return (
        value(found, "trtbuild_prompt_tokens_total", model="m"),
        value(found, "trtbuild_requests_in_flight", model="m"),
        value(found, "trtbuild_workers"),
    )


async def test_any_worker_tells_of_all_and_a_killed_one_s_counts_stay(tmp_path: Path) -> None:
    settings = config(shared_dir=tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, tmp_path / "metrics"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as worker:
        try:
            assert worker.stdout
            assert worker.stdout.readline() == "posted\n"
            one = Metrics(settings)
            with RequestMeter(one, model="m", endpoint="e") as meter:
                meter.prompt(2)
                assert told(series(await one.text())) == (7, 2, 2)
                os.kill(worker.pid, signal.SIGKILL)
                worker.wait(30)
                assert told(series(await one.text())) == (7, 1, 1), "what it measured is gone"
        finally:
            worker.kill()
    await one.close()
    two = Metrics(settings)
    assert told(series(await two.text())) == (7, 0, 1), "counts outlive their workers"
    await two.close()


async def test_a_worker_shows_its_numbers_without_being_asked_and_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.telemetry.metrics._POST_SECONDS", 0.01)
    settings = config(shared_dir=tmp_path)
    shy, asked = Metrics(settings), Metrics(settings)
    await shy.start()
    shy.tally.add(PROMPT_TOKENS, "m", amount=4)
    while told(series(await asked.text()))[0] != 4:
        pass
    await shy.close()
    shy_at_its_end = Metrics(settings)
    shy_at_its_end.tally.add(PROMPT_TOKENS, "m", amount=1)
    await shy_at_its_end.close()
    assert told(series(await asked.text()))[0] == 5
    await asked.close()


async def test_what_one_worker_told_no_other_takes_back(tmp_path: Path) -> None:
    settings = config(shared_dir=tmp_path)
    one, two = Metrics(settings), Metrics(settings)
    for tokens in range(1, 4):
        one.tally.add(PROMPT_TOKENS, "m")
        assert told(series(await one.text()))[0] == tokens
        assert told(series(await two.text()))[0] == tokens
    await one.close()
    await two.close()


def test_counts_are_folded_once_even_by_a_fold_that_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tokens in (1, 2):
        board = Board(tmp_path)
        board.post(prompt(tokens, in_flight=1))
        board.close()

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            Board(tmp_path)
    for _ in range(3):
        board = Board(tmp_path)
        total, living = board.others()
        assert living == 0
        assert total.numbers[PROMPT_TOKENS.name] == {("m",): 3}
        assert total.distribution(TTFT, "m").sum == 3
        assert IN_FLIGHT.name not in total.numbers
        board.close()
    assert len(list(tmp_path.iterdir())) <= 4, "the folder doesn't grow"


def test_a_spoiled_file_costs_its_own_numbers_alone(tmp_path: Path) -> None:
    first, second = Board(tmp_path), Board(tmp_path)
    first.post(prompt(1))
    (tmp_path / "7-spoiled.lock").touch()
    (tmp_path / "7-spoiled.json").write_text('{"numbers": {"trtbuild_unknown": [[[], 1]]')
    assert second.others()[0].numbers[PROMPT_TOKENS.name] == {("m",): 1}


def test_a_full_disk_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    writer, reader = Board(tmp_path), Board(tmp_path)
    writer.post(prompt(1))
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        writer.post(prompt(2))
    assert reader.others()[0].numbers[PROMPT_TOKENS.name] == {("m",): 1}
    writer.post(prompt(2))
    assert reader.others()[0].numbers[PROMPT_TOKENS.name] == {("m",): 2}
