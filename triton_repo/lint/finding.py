"""One thing that a repository has wrong, as it is shown and as JSON has it."""

from __future__ import annotations

from dataclasses import dataclass

ERROR, WARNING = "error", "warning"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """An error keeps Triton from loading a model, or from doing what is written; a warning hurts.

    `file` is relative to the repository, `field` is the field in it, `found` what is there, `do`
    what mends it.
    """

    severity: str
    file: str
    field: str
    found: str
    do: str


def error(file: str, field: str, found: str, do: str) -> Finding:
    """What doesn't work."""
    return Finding(severity=ERROR, file=file, field=field, found=found, do=do)


def warning(file: str, field: str, found: str, do: str) -> Finding:
    """What works, and hurts."""
    return Finding(severity=WARNING, file=file, field=field, found=found, do=do)
