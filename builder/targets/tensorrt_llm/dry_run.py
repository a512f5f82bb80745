"""What a build would do, and why, without doing or needing any of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.targets.tensorrt_llm import compiler as compilers
from builder.targets.tensorrt_llm.command import value_of
from builder.targets.tensorrt_llm.flags import FLAGS
from builder.targets.tensorrt_llm.job import decide
from builder.targets.tensorrt_llm.local_gpus import look
from builder.targets.tensorrt_llm.resolve import BuildOptions

if TYPE_CHECKING:
    from builder.memory import RankMemory


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A setting's value, and why it is so."""

    value: Any
    reason: str


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """What a build would do. `missing` is why it can't be done here, None when it can.

    `command` is the whole command line; `settings` are by the compiler's names for them, those
    left at its own defaults are left out; `build_config` has all.
    """

    command: tuple[str, ...]
    compiler: str
    missing: str | None
    gpu: str | None
    settings: dict[str, Setting]
    build_config: dict[str, Any]
    memory: RankMemory | None


def dry_run(
    checkpoint: Path,
    out: Path,
    *,
    options: BuildOptions | None = None,
    name: str | None = None,
    container: str | None = None,
    timing_cache: Path | None = None,
    workers: int | None = None,
) -> DryRun:
    """What `build` would do with the same arguments.

    Its command leaves the timing cache beside the engines. Raises ArtifactError and LimitError as
    `build` does.
    """
    compiler, missing = compilers.planned(container)
    here = look(options.gpu if options else None)
    job = decide(
        checkpoint,
        compiler,
        here,
        options=options,
        name=name,
        workers=workers,
        timing_cache=timing_cache,
    )
    before = job.cache if job.cache and job.cache.exists() else None
    config, reasons = job.resolved.config, job.resolved.reasons
    settings = {
        flag: Setting(value=value_of(config, FLAGS[flag]), reason=why)
        for flag, why in reasons.items()
    }
    return DryRun(
        command=tuple(job.command(out.resolve(), before=before, after=None)),
        compiler=str(compiler),
        missing=missing or (str(here.problem) if here.problem else None),
        gpu=f"{job.gpu.name} (SM {job.gpu.sm})" if job.gpu else None,
        settings={**settings, "workers": Setting(value=job.workers, reason=job.why_workers)},
        build_config=config.to_json(),
        memory=job.resolved.memory,
    )
