"""Reads what `trtllm-build` says: how far it is, what is worth repeating, and why it failed.

Its lines look like `[11/16/2024-00:05:47] [TRT-LLM] [I] Build TensorRT engine Unnamed Network 0`;
TensorRT's own have `[TRT]` there; Python's tracebacks have neither. The words looked for are those
of TensorRT-LLM 1.2 (`tensorrt_llm/builder.py`, `commands/build.py`), of TensorRT and of container
engines, as found in public reports of failed builds.
"""

from __future__ import annotations

import re
import signal
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from builder.errors import ArtifactError, LimitError, MissingToolError, OutputError, TrtbuildError
from builder.progress import Progress

STEPS = (
    "Total time of constructing network from module object",
    "Build TensorRT engine ",
    "Total time of building ",
    "Engine serialized.",
)
"""Each is said once for every rank. Ranks that are built at once don't say which one they are."""

USUAL = (
    "Option --gather_generation_logits is deprecated",
    "padding removal and fMHA are both enabled, max_input_len is not required",
    "remove_input_padding is enabled, while opt_num_tokens is not set",
)
"""Warnings of every build, whatever was asked: they are kept in the log alone."""

_LEVEL = re.compile(r"\[(TRT|TRT-LLM)\] (?:\[(?:MPI_Rank|RANK) \d+\] )?\[([A-Z])\] (.*)")
_PULLING = "Unable to find image"
_ALL_ENGINES = "Total time of building all engines"
_TAIL_LINES = 400
_KILLED = (137, "the kernel killed it, as it does when the host's memory is full")


@dataclass(frozen=True, kw_only=True)
class Cause:
    """A known failure: what its line looks like, and what that means to the user."""

    pattern: str
    error: type[TrtbuildError]
    what: str
    do: str


_GPU_MEMORY = "lower --max-num-tokens or --max-batch-size, or divide the model with convert --tp"
_HOST_MEMORY = "use --workers 1, close other programs, add swap, or divide the model with --tp"
_DRIVER = "update the NVIDIA driver, or choose an older image: trtbuild doctor says which fits"

CAUSES: tuple[Cause, ...] = (
    Cause(
        pattern=r"No space left on device|Disk quota exceeded|\[Errno (27|28|122)\]",
        error=OutputError,
        what="the disk is full",
        do="free some space or choose another place with -o",
    ),
    Cause(
        pattern=r"process pool was terminated abruptly|\bMemoryError\b|Cannot allocate memory"
        r"|std::bad_alloc",
        error=LimitError,
        what="the engine compiler ran out of the host's memory",
        do=_HOST_MEMORY,
    ),
    Cause(
        pattern=r"Error Code 2: OutOfMemory|CUDA out of memory|cudaErrorMemoryAllocation"
        r"|CUDA error 2\b|CUDA_ERROR_OUT_OF_MEMORY|Requested amount of GPU memory",
        error=LimitError,
        what="the engine compiler ran out of the GPU's memory",
        do=_GPU_MEMORY,
    ),
    Cause(
        pattern=r"Target GPU SM \d+ is not supported|Unsupported SM|Unsupported architecture"
        r"|no kernel image is available|is not supported on SM ?\d*|not supported on SM>=",
        error=LimitError,
        what="this GPU's compute capability can't run what was asked for",
        do="choose a recipe that this GPU runs (trtbuild recipes --gpu NAME), or another GPU",
    ),
    Cause(
        pattern=r"CUDA driver version is insufficient|CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"
        r"|forward compatibility was attempted|unsatisfied condition: cuda",
        error=MissingToolError,
        what="the NVIDIA driver is too old for this TensorRT-LLM",
        do=_DRIVER,
    ),
    Cause(
        pattern=r"max_workers must be greater than 0|Found no NVIDIA driver"
        r"|no CUDA-capable device|No CUDA GPUs are available|could not select device driver"
        r"|unresolvable CDI devices",
        error=MissingToolError,
        what="the engine compiler sees no GPU",
        do="check nvidia-smi, CUDA_VISIBLE_DEVICES and, for a container, the NVIDIA Container"
        " Toolkit: trtbuild doctor looks at them",
    ),
    Cause(
        pattern=r"unrecognized arguments|invalid choice|invalid int value|expected one argument",
        error=LimitError,
        what="this TensorRT-LLM's compiler doesn't take these flags",
        do="use TensorRT-LLM 1.2.1 (--container has it); for a --set, see trtbuild build --dry-run",
    ),
    Cause(
        pattern=r"cannot open shared object file|undefined symbol|No module named"
        r"|Decoding operators failed to load|API Usage Error \(.*version",
        error=MissingToolError,
        what="the installed TensorRT-LLM doesn't fit its libraries",
        do="install the versions that belong together, or build with --container",
    ),
    Cause(
        pattern=r"executable file not found|trtllm-build: (not found|No such file)",
        error=MissingToolError,
        what="the image has no engine compiler",
        do="give an image with TensorRT-LLM 1.2.1 or older, or --container for the matching one",
    ),
    Cause(
        pattern=r"pull access denied|manifest (for .* not found|unknown)|unauthorized"
        r"|no such image|error pulling image",
        error=MissingToolError,
        what="the container engine can't get the image",
        do="check its name and the network, or pull it by hand (docker login nvcr.io)",
    ),
    Cause(
        pattern=r"Cannot connect to the Docker daemon|permission denied while trying to connect",
        error=MissingToolError,
        what="the container engine doesn't answer",
        do="start it, or add yourself to its group: trtbuild doctor looks at it",
    ),
    Cause(
        pattern=r"Unsupported model architecture",
        error=ArtifactError,
        what="this TensorRT-LLM has no such model",
        do="build with TensorRT-LLM 1.2.1, or from the Hugging Face folder with --target llmapi",
    ),
    Cause(
        pattern=r"Could not find any implementation for node",
        error=LimitError,
        what="TensorRT found no kernel for a part of the model: mostly for want of GPU memory",
        do=_GPU_MEMORY,
    ),
)
"""The first that a line of error matches is the cause, so what is more telling comes first."""


class BuildLog:
    """Takes a build's lines one by one; keeps all in `path`, tells progress, says what matters."""

    def __init__(
        self, path: Path, *, ranks: int, progress: Progress, say: Callable[[str], None]
    ) -> None:
        self._path, self._progress, self._say = path, progress, say
        self._file: TextIO = path.open("w", encoding="utf-8")
        self._total, self._done = ranks * len(STEPS), 0
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._said: set[str] = set()
        self._start_s = self._last_s = time.monotonic()

    def close(self) -> None:
        """Have everything in the file."""
        self._file.close()

    def take(self, line: str) -> None:
        """One line of the compiler's."""
        self._last_s = time.monotonic()
        self._file.write(line + "\n")
        self._file.flush()
        self._tail.append(line)
        found = _LEVEL.search(line)
        source, level, text = found.groups() if found else ("", "", line)
        if source == "TRT-LLM" and level in "WEF" and self._is_news(text):
            self._say(f"{'warning' if level == 'W' else 'error'}: {text}")
        if text.startswith(_PULLING):
            self._say(f"build: {text}; it is fetched, which takes a while the first time")
        if text.startswith(STEPS) and not text.startswith(_ALL_ENGINES):
            self._done = min(self._done + 1, self._total)
            self._progress(self._done, self._total)
            self._say(f"build: step {self._done} of {self._total}, {self._clock()}: {text}")

    def beat(self) -> None:
        """Say that time goes by: the compiler has been silent for a while."""
        quiet = time.monotonic() - self._last_s
        self._progress(self._done, self._total)
        self._say(
            f"build: step {self._done} of {self._total}, {self._clock()},"
            f" silent for {quiet:.0f} s (that is usual while TensorRT times kernels)"
        )

    def failure(self, exit_code: int, kept: Path) -> TrtbuildError:
        """Why the compiler ended with `exit_code`; `kept` is where its log is to be read."""
        read = f"its log is {kept}"
        if exit_code == _KILLED[0]:
            what = "the engine compiler ran out of the host's memory"
            return LimitError(what, found=_KILLED[1], do=f"{_HOST_MEMORY}; {read}")
        for cause in CAUSES:
            for line in reversed(self._tail):
                if not _is_benign(line) and re.search(cause.pattern, line):
                    do = f"{cause.do}; {read}"
                    return cause.error(cause.what, found=_text(line), do=do)
        last = next((line for line in reversed(self._tail) if line.strip()), "nothing said")
        found = f"{_ending(exit_code)}: {_text(last)}"
        return ArtifactError("the engine compiler failed", found=found, do=f"read {kept}")

    def _is_news(self, text: str) -> bool:
        """Whether it is worth repeating, and hasn't been yet: ranks say the same."""
        known = text in self._said or text.startswith(USUAL)
        self._said.add(text)
        return not known

    def _clock(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self._start_s), 60)
        return f"{minutes}:{seconds:02d} min"


def _ending(exit_code: int) -> str:
    """How it ended, in words."""
    with suppress(ValueError):
        return f"it was ended by {signal.Signals(exit_code - 128).name}"
    return f"exit code {exit_code}"


def _is_benign(line: str) -> bool:
    """Whether a line is of a level that even a good build says: TensorRT skips what doesn't fit."""
    found = _LEVEL.search(line)
    return found is not None and found[2] in "WIV"


def _text(line: str) -> str:
    """A line without its time and level, cut to what one can read."""
    found = _LEVEL.search(line)
    return (found[3] if found else line.strip())[:300]
