"""A stand-in for Open MPI's mpirun, for machines without one: a script to put on the PATH.

As strict as mpirun's documentation about what it takes: root only with --allow-run-as-root, an
option that it doesn't know ends it, application contexts stand between colons, each with -n. And
as unforgiving: a rank that fails ends all, and mpirun with its code (128 + its signal).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

FLAGS = {"--allow-run-as-root": 0, "--oversubscribe": 0, "--bind-to": 1}
BINDINGS = {"none", "hwthread", "core", "l1cache", "l2cache", "l3cache", "socket", "numa", "board"}


def install(folder: Path) -> Path:
    """Put this file into `folder` as mpirun."""
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "mpirun"
    script.write_text(f"#!{sys.executable}\n{Path(__file__).read_text()}")
    script.chmod(0o755)
    return script


def parse(words: list[str]) -> tuple[set[str], list[list[str]]]:
    """The global options, and the command of each rank."""
    options = set()
    while words and words[0] in FLAGS:
        values = words[1 : 1 + FLAGS[words[0]]]
        if words[0] == "--bind-to" and values[0] not in BINDINGS:
            sys.exit(f"mpirun: no such binding {values[0]}")
        options.add(words[0])
        words = words[1 + len(values) :]
    ranks: list[list[str]] = []
    contexts: list[list[str]] = [[]]
    for word in words:
        contexts[-1].append(word) if word != ":" else contexts.append([])
    for context in contexts:
        if len(context) < 3 or context[0] not in ("-n", "-np") or context[2].startswith("-"):
            sys.exit(f"mpirun: not an application: {' '.join(context)}")
        ranks += [context[2:]] * int(context[1])
    return options, ranks


def main() -> int:
    options, ranks = parse(sys.argv[1:])
    if os.geteuid() == 0 and "--allow-run-as-root" not in options:
        sys.exit("mpirun has detected an attempt to run as root.")
    size = str(len(ranks))
    running = [
        subprocess.Popen(
            command,
            env={**os.environ, "OMPI_COMM_WORLD_RANK": str(i), "OMPI_COMM_WORLD_SIZE": size},
            start_new_session=True,
        )
        for i, command in enumerate(ranks)
    ]
    signal.signal(signal.SIGTERM, lambda *_: _abort(running, 143))
    while any(codes := [process.poll() for process in running]) or None in codes:
        for code in codes:
            if code:
                _abort(running, code if code > 0 else 128 - code)
        time.sleep(0.05)
    return 0


def _abort(running: list[subprocess.Popen[bytes]], code: int) -> None:
    for process in running:
        process.kill()
    sys.exit(code)


if __name__ == "__main__":
    sys.exit(main())
