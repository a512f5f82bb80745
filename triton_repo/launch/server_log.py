"""The end of tritonserver's log, and in it the reason why it ended."""

from __future__ import annotations

import re
from pathlib import Path

_TAIL_BYTES = 65_536
_GLOG_ERROR = re.compile(r"^E\d{4} \S+ \d+ \S+\] \"?(?P<text>.*?)\"?$")
_MODEL_ERROR = "failed to load '"
_NOISE = ("CudaDriverHelper has not been initialized", "unable to create stream for ensemble")
_REMEDIES = (
    (
        r"shared memory|/dev/shm|shm_open|Bus error",
        "give it more shared memory (docker run --shm-size=4g, or --ipc=host) or empty /dev/shm; ",
    ),
    (r"already in use", "choose other ports, or stop who has them; "),
)
"""Words in the cause → what to do about it."""


def tail(path: Path, start: int, lines: int = 20) -> str:
    """The last `lines` lines of the log, of what was written from byte `start` on."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, 2)
            file.seek(max(start, end - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def cause(path: Path, start: int) -> str | None:
    """The error in the log from byte `start` on that led to the rest: a model's, else the first."""
    errors = [
        text for line in tail(path, start, lines=1_000).splitlines() if (text := _error(line))
    ]
    models = [text for text in errors if text.startswith(_MODEL_ERROR)]
    return next(iter(models or errors), None)


def remedy(cause: str) -> str:
    """What to do about a cause that has an answer, with what parts it from more; else nothing."""
    found = (words for pattern, words in _REMEDIES if re.search(pattern, cause, re.IGNORECASE))
    return next(found, "")


def _error(line: str) -> str | None:
    """The text of a line that reports an error; line breaks in it, which Triton escapes, undone."""
    match = _GLOG_ERROR.match(line)
    text = match["text"] if match else line if line.startswith("error: ") else ""
    if any(noise in text for noise in _NOISE):
        return None
    return " ".join(text.replace("\\n", " ").split()) or None
