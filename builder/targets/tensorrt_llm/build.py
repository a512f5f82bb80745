"""Target `tensorrt-llm`: a checkpoint becomes TensorRT engines, one a rank, by `trtllm-build`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from builder import artifact
from builder.artifact import Staging
from builder.errors import ArtifactError
from builder.manifest import Manifest, read
from builder.progress import Progress, silent
from builder.targets.tensorrt_llm import compiler as compilers
from builder.targets.tensorrt_llm import engine_check
from builder.targets.tensorrt_llm.build_log import BuildLog
from builder.targets.tensorrt_llm.compiler import Compiler
from builder.targets.tensorrt_llm.job import Job, decide
from builder.targets.tensorrt_llm.local_gpus import LocalGpus, look
from builder.targets.tensorrt_llm.resolve import BuildOptions
from builder.targets.tensorrt_llm.running import running
from builder.targets.tensorrt_llm.timing_cache import TimingCache

LOG = "build.log"
BEAT_S = 30.0
"""How long the compiler is silent before we say that time goes by."""
_TIMING = ".timing"


def build(
    checkpoint: Path,
    out: Path,
    *,
    options: BuildOptions | None = None,
    name: str | None = None,
    container: str | None = None,
    timing_cache: Path | None = None,
    workers: int | None = None,
    progress: Progress = silent,
    say: Callable[[str], None] = lambda line: None,
) -> Manifest:
    """Write the engine folder: every rank's engine, their `config.json`, log and tokenizer.

    `name` is what the model will be served as. `container` is an image, or "auto" for the matching
    one; without it, the compiler here builds. `timing_cache` is the file to keep TensorRT's in.
    `workers` ranks are built at once, by default what GPUs and memory hold. `say` gets what is
    worth reading of the compiler's log. Does nothing when `out` is already what it would write.

    Raises ArtifactError for a damaged checkpoint or a failed build, LimitError for what can't be
    built, MissingToolError without a compiler or a GPU, OutputError when the folder can't be
    written. The log of a failed build stays beside `out`.
    """
    compiler, here = require(options, container)
    job = decide(
        checkpoint,
        compiler,
        here,
        options=options,
        name=name,
        workers=workers,
        timing_cache=timing_cache,
    )
    wanted = job.manifest()
    found = artifact.finished(out, wanted)
    if found is not None:
        if job.resolved.config.visualize_network:
            say("warning: no network is drawn, for the engine is already there: give another -o")
        return found
    ranks = range(job.source.layout.files)
    sizes = (tensor.nbytes for rank in ranks for tensor in job.source.tensors(rank).values())
    artifact.require_space(out.resolve(), sum(sizes))
    with artifact.stage(out, wanted) as staging:
        _run(job, out, staging, progress, say)
    _kept_log(out).unlink(missing_ok=True)
    return read(out, "engine")


def require(
    options: BuildOptions | None = None, container: str | None = None
) -> tuple[Compiler, LocalGpus]:
    """What builds, and on what: raises what `build` would before it reads the checkpoint."""
    compiler, here = compilers.find(container), look(options.gpu if options else None)
    if here.problem:
        raise here.problem
    return compiler, here


def _run(
    job: Job, out: Path, staging: Staging, progress: Progress, say: Callable[[str], None]
) -> None:
    """Compile into the staging folder and check what came of it."""
    folder, kept = staging.path, _kept_log(out)
    cache = TimingCache.lent(job.cache, folder / _TIMING)
    say(f"build: {job.compiler}; ranks: {job.source.world_size}, at once: {job.workers}")
    command = job.command(folder, before=cache.input, after=cache.after)
    log = BuildLog(folder / LOG, ranks=job.source.world_size, progress=progress, say=say)
    try:
        exit_code = _compile(command, job.compiler, log)
        if exit_code:
            raise log.failure(exit_code, kept)
        _check(job, folder, kept, say)
    except Exception:
        with suppress(OSError):
            shutil.copyfile(folder / LOG, kept)
        raise
    finally:
        log.close()
    cache.keep(say)
    shutil.rmtree(folder / _TIMING)
    for file in job.source.tokenizer_files:
        shutil.copyfile(file, folder / file.name)


def _kept_log(out: Path) -> Path:
    """Where the log of a failed build is, beside `out`."""
    return out.resolve().with_name(f"{out.resolve().name}.{LOG}")


def _compile(command: list[str], compiler: Compiler, log: BuildLog) -> int:
    with running(command, compiler.aftermath) as process:
        for line in process.lines(BEAT_S):
            if line is None:
                log.beat()
            else:
                log.take(line)
        return process.exit_code()


def _check(job: Job, folder: Path, kept: Path, say: Callable[[str], None]) -> None:
    try:
        _, given_up = engine_check.check(
            folder,
            asked=job.resolved.config,
            mapping=job.source.layout.mapping(),
            tensorrt_llm=job.compiler.tensorrt_llm,
        )
    except ArtifactError as error:
        do = f"{error.do}; the compiler's log is {kept}"
        raise ArtifactError(error.what, found=error.found, do=do) from error
    for each in given_up:
        say(f"warning: {each}")
