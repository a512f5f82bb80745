"""Runs the engine compiler under its guard and hands over its lines. Never leaves it behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_GUARD = Path(__file__).with_name("guard.py")
_LINE_END = re.compile(rb"[\r\n]+")
_CHUNK_BYTES = 1 << 16
_GRACE_S = 5.0
_KILL_S = 45.0
"""More than the guard takes to kill everything and to remove a container."""


class Running:
    """A compiler at work."""

    def __init__(self, guard: subprocess.Popen[bytes]) -> None:
        self._guard = guard

    def lines(self, beat_s: float) -> Iterator[str | None]:
        """Its lines as they come, to its end; None whenever it was silent for `beat_s`.

        A carriage return ends a line too, as in progress bars.
        """
        output = self._guard.stdout
        if output is None:
            raise RuntimeError("a process without its pipe")
        rest = b""
        while True:
            if not select.select([output], [], [], beat_s)[0]:
                if self._guard.poll() is not None:
                    # it was killed, and a worker that it no longer guards holds the pipe
                    break
                yield None
                continue
            chunk = os.read(output.fileno(), _CHUNK_BYTES)
            *lines, rest = _LINE_END.split(rest + chunk)
            yield from (line.decode(errors="replace") for line in lines if line)
            if not chunk:
                break
        if rest:
            yield rest.decode(errors="replace")

    def exit_code(self) -> int:
        """Wait for its end: its exit code, or 128 + the signal that ended it."""
        code = self._guard.wait()
        return code if code >= 0 else 128 - code


@contextmanager
def running(command: Sequence[str], aftermath: Sequence[str] = ()) -> Iterator[Running]:
    """Start `command`; when the body is left, however that comes about, it has ended.

    It gets SIGTERM, and SIGKILL 5 s later, with all its children. What `aftermath` removes, a
    container, has nothing to lose, and is killed at once. That happens too when this process is
    killed; only an end by itself needs none of it.
    """
    isolated = [sys.executable, "-I", "-S", str(_GUARD), json.dumps(list(aftermath))]
    guard = subprocess.Popen(
        [*isolated, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # else lines on its standard output come when it has a block of them
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        # an interrupt from the terminal is ours, and we stop the compiler in order
        start_new_session=True,
    )
    try:
        yield Running(guard)
    finally:
        _end(guard, grace_s=0 if aftermath else _GRACE_S)


def _end(guard: subprocess.Popen[bytes], grace_s: float) -> None:
    if guard.stdin is None or guard.stdout is None:
        raise RuntimeError("a process without its pipes")
    # nobody reads any more, and a compiler that can't write must not wait for us
    guard.stdout.close()
    if guard.poll() is None and grace_s:
        with contextlib.suppress(BrokenPipeError):
            guard.stdin.write(b"t")
            guard.stdin.flush()
        with contextlib.suppress(subprocess.TimeoutExpired):
            guard.wait(grace_s)
    with contextlib.suppress(BrokenPipeError):
        guard.stdin.close()
    try:
        guard.wait(_KILL_S)
    except subprocess.TimeoutExpired:
        guard.kill()
        guard.wait()
