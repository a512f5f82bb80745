"""Asks a program of the machine (nvidia-smi, docker) something, and never waits for long.

With a broken driver nvidia-smi can hang in the kernel, where even a kill doesn't reach it.
"""

from __future__ import annotations

import subprocess
from contextlib import suppress
from dataclasses import dataclass

TIMEOUT_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a program wrote and its exit code; None where it gave none in time or didn't start."""

    code: int | None
    out: str = ""
    error: str = ""

    @property
    def ok(self) -> bool:
        """Whether it ended well."""
        return self.code == 0

    @property
    def complaint(self) -> str:
        """The first line that says what went wrong; programs differ in where they write it."""
        lines = [line.strip() for text in (self.error, self.out) for line in text.splitlines()]
        return next(filter(None, lines), f"exit code {self.code}")


def ask(*arguments: str, timeout_s: float | None = None) -> Answer:
    """Run a program without a terminal, from `/`, and give what it says in TIMEOUT_S."""
    timeout_s = TIMEOUT_S if timeout_s is None else timeout_s
    try:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        return Answer(code=None, error=f"{arguments[0]} doesn't start: {error.strerror}")
    try:
        out, said = process.communicate(timeout=timeout_s)
        return Answer(code=process.returncode, out=out, error=said)
    except subprocess.TimeoutExpired:
        process.kill()
        return Answer(code=None, error=f"{arguments[0]} gave no answer in {timeout_s:g} s")
    finally:
        for pipe in (process.stdout, process.stderr):
            if pipe:
                pipe.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(1)
