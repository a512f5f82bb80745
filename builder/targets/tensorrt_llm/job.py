"""One engine to be built, decided: from what, by which compiler, for which GPU, with what settings.

A build and its dry run decide the same way, so that one shows what the other does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from builder import digest
from builder.checkpoint import Checkpoint, rank_file
from builder.gpus import Gpu
from builder.limits import LIMITS
from builder.machine.resources import memory
from builder.manifest import Manifest, identity, own_version
from builder.targets.tensorrt_llm.command import arguments
from builder.targets.tensorrt_llm.compiler import Compiler
from builder.targets.tensorrt_llm.local_gpus import LocalGpus
from builder.targets.tensorrt_llm.resolve import BuildOptions, Resolved, resolve
from builder.targets.tensorrt_llm.timing_cache import default_place
from builder.targets.tensorrt_llm.workers import workers as workers_for


@dataclass(frozen=True, kw_only=True)
class Job:
    """What `decide` decided. `cache` is where TensorRT's timing cache is kept, None for nowhere."""

    source: Checkpoint
    compiler: Compiler
    gpu: Gpu | None
    resolved: Resolved
    workers: int
    why_workers: str
    name: str
    cache: Path | None

    def command(self, out: Path, *, before: Path | None, after: Path | None) -> list[str]:
        """The whole command line that compiles into `out`, with all that it reads mounted.

        The timing cache is read from `before` and written to `after`, or else into `out`.
        """
        config = self.resolved.config
        words = arguments(
            config,
            checkpoint=self.source.path,
            out=out,
            workers=self.workers,
            input_timing_cache=before,
            output_timing_cache=after,
        )
        files = [Path(file) for file in (before, config.command.model_cls_file) if file]
        beside = [file.parent for file in files if not file.is_relative_to(out)]
        reads = [self.source.path, *map(Path, config.lora_config.lora_dir), *beside]
        drawn = [Path(config.visualize_network)] if config.visualize_network else []
        return self.compiler.command(words, reads=reads, writes=[out, *drawn])

    def manifest(self) -> Manifest:
        """What the engine will be."""
        source, layout, config = self.source, self.source.layout, self.resolved.config
        settings: Mapping[str, Any] = config.to_json()
        beside: dict[str, Any] = {}
        if folders := config.lora_config.lora_dir:
            beside["lora"] = [identity(Path(folder)) for folder in folders]
        if file := config.command.model_cls_file:
            beside["model_cls"] = digest.of(Path(file))
        return Manifest(
            kind="engine",
            made_by={"trtbuild": own_version(), **self.compiler.made_by},
            source={**identity(source.path), **beside},
            options={
                "target": "tensorrt-llm",
                "name": self.name,
                "build_config": settings,
                "gpu_sm": self.gpu.sm if self.gpu else None,
                "image": self.compiler.image,
            },
            about={
                "name": self.name,
                "target": "tensorrt-llm",
                "architecture": source.config["architecture"],
                "dtype": source.config["dtype"],
                "quant_algo": source.quant_algo,
                "gpu": {"name": self.gpu.name, "sm": self.gpu.sm} if self.gpu else None,
                "image": self.compiler.image,
                "tp": layout.tp,
                "pp": layout.pp,
                "cp": layout.cp,
                "world_size": layout.world_size,
                "limits": {name: settings[name] for name in LIMITS},
            },
        )


def decide(
    checkpoint: Path,
    compiler: Compiler,
    here: LocalGpus,
    *,
    options: BuildOptions | None,
    name: str | None,
    workers: int | None,
    timing_cache: Path | None,
) -> Job:
    """The job of building `checkpoint`; None is chosen. Raises as `build` does."""
    source = Checkpoint.open(checkpoint.resolve())
    options = replace(options or BuildOptions(), gpu=here.gpu)
    files = [source.path / rank_file(rank) for rank in range(source.layout.files)]
    count, why = workers_for(
        ranks=source.world_size,
        gpus=here.count,
        rank_bytes=max(file.stat().st_size for file in files),
        available_bytes=memory().available_bytes,
        asked=workers,
    )
    kept = timing_cache.resolve() if timing_cache else default_place(compiler.tensorrt, here.gpu)
    return Job(
        source=source,
        compiler=compiler,
        gpu=here.gpu,
        resolved=resolve(source.config, options),
        workers=count,
        why_workers=why,
        name=name or source.name,
        cache=kept,
    )
