"""Finds all that is wrong in a model repository, of ours or made by hand from a template."""

from __future__ import annotations

from pathlib import Path

from triton_repo.lint import (
    adapters,
    digests,
    ensembles,
    folders,
    parameters,
    repository,
    scheduling,
    templates,
    tensors,
)
from triton_repo.lint.finding import ERROR, Finding

__all__ = ["CHECKS", "ERROR", "Finding", "lint"]

CHECKS = (
    templates.unfilled,
    templates.absent,
    folders.versions,
    folders.paths,
    folders.xgrammar,
    adapters.misread,
    tensors.twice,
    tensors.known,
    ensembles.steps,
    parameters.known,
    parameters.values,
    parameters.memory,
    scheduling.batches,
    scheduling.instances,
    scheduling.queues,
    scheduling.streams,
    digests.changed,
)
"""What is looked at: each takes the repository and gives what it finds."""


def lint(path: Path, *, files: bool = True) -> tuple[Finding, ...]:
    """Everything that is wrong in the repository in `path`, errors first.

    `files` of False leaves out reading files back that trtbuild wrote. Raises ArtifactError where
    there is no repository.
    """
    found, findings = repository.read(path)
    for check in CHECKS:
        if files or check is not digests.changed:
            findings += check(found)
    return tuple(sorted(findings, key=lambda each: each.severity != ERROR))
