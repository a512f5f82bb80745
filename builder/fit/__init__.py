"""Whether a TensorRT-LLM engine runs in a place: this machine, a container, a GPU by its name.

An engine is bound to its TensorRT-LLM, its TensorRT, CUDA's major version and the compute
capability that it was built on; elsewhere it fails while it loads, in words that say little. All
mismatches are found, each with the command that mends it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from builder.errors import ArtifactError
from builder.fit.engine import BuiltEngine, is_engine, read_engine
from builder.fit.files import damage
from builder.fit.gpus import capability, count, memory
from builder.fit.mismatch import Agreement, Found, Mismatch, Unknown
from builder.fit.place import Place, place_of
from builder.fit.versions import driver, software
from builder.machine import Machine
from builder.progress import Progress, silent
from builder.versions import Release

__all__ = ["Comparison", "Mismatch", "compare", "fit", "is_engine", "refuse_misfit"]

Against = Machine | Release | Place | None
"""None is this machine."""

_CHECKS: tuple[Callable[[BuiltEngine, Place], Iterator[Found]], ...] = (
    software,
    driver,
    capability,
    count,
    memory,
)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """An engine against a place: what doesn't fit, what does, and what could not be compared.

    `whole` is whether every file is as it was built, None where there are no digests to tell.
    """

    engine: Path
    place: str
    whole: bool | None
    mismatches: tuple[Mismatch, ...]
    agreements: tuple[Agreement, ...]
    unknown: tuple[Unknown, ...]

    @property
    def problems(self) -> tuple[Mismatch, ...]:
        """The mismatches that keep the engine from running."""
        return tuple(each for each in self.mismatches if each.fatal)

    @property
    def fits(self) -> bool | None:
        """Whether it does; None where nothing is amiss but not everything could be compared."""
        return False if self.problems else (None if self.unknown else True)

    def require_fit(self) -> None:
        """Raise ArtifactError for the first problem, counting the rest."""
        if not self.problems:
            return
        first, rest = self.problems[0], len(self.problems) - 1
        command = f": {first.command}" if first.command else ""
        more = f" ({rest} more: trtbuild check {self.engine})" if rest else ""
        raise ArtifactError(
            f"{self.engine} doesn't fit {self.place}: {first.what}: {first.engine}",
            found=first.found,
            do=first.do + command + more,
        )


def fit(engine: Path, against: Against = None) -> list[Mismatch]:
    """Every mismatch of an engine folder with a place, the fatal ones first.

    Reads no big file. Raises ArtifactError for a folder that isn't a TensorRT-LLM engine.
    """
    return list(compare(engine, against).mismatches)


def compare(
    engine: Path, against: Against = None, *, deep: bool = False, progress: Progress = silent
) -> Comparison:
    """`fit`, with what agrees and what could not be compared.

    `deep` reads every byte back; `progress` counts them, file by file.
    """
    built, place = read_engine(engine), place_of(against)
    checked = chain.from_iterable(check(built, place) for check in _CHECKS)
    files = list(damage(built, place, deep=deep, progress=progress))
    damaged = any(isinstance(each, Mismatch) for each in files)
    found: list[Found] = [*files, *checked]
    mismatches = [each for each in found if isinstance(each, Mismatch)]
    return Comparison(
        engine=engine,
        place=place.name,
        whole=False if damaged else (True if built.manifest else None),
        mismatches=tuple(sorted(mismatches, key=lambda each: not each.fatal)),
        agreements=tuple(each for each in found if isinstance(each, Agreement)),
        unknown=tuple(each for each in found if isinstance(each, Unknown)),
    )


def refuse_misfit(engine: Path, against: Against = None) -> None:
    """Raise ArtifactError, naming the first mismatch and counting the rest, before Triton starts.

    Quick: no digests. What can't be compared is let pass, and so is any other target's engine.
    """
    if is_engine(engine):
        compare(engine, against).require_fit()
