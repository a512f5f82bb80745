"""The commands that mend a mismatch: another image, or the build again as the manifest tells it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder import manifest as manifests
from builder import versions
from builder.errors import LimitError, TrtbuildError
from builder.fit.engine import BuiltEngine
from builder.gpus import Gpu

if TYPE_CHECKING:
    from builder.fit.place import Place
    from builder.targets.tensorrt_llm.config import BuildConfig

CHECKPOINT = "CHECKPOINT"
"""An engine knows its checkpoint by digest, not by path: the user knows where it is."""
ENGINE = "ENGINE"
"""A folder of its own, for an engine that lies in a repository: that one is made again from it."""
_LIMITS = ("max_batch_size", "max_seq_len", "max_num_tokens", "max_input_len", "max_beam_width")


def other_versions(built: BuiltEngine, place: Place) -> str:
    """What to do where versions differ: use the image that has the engine's, or make it anew."""
    ends = place.tensorrt_llm and not versions.has_engines(place.tensorrt_llm)
    anew = "move it to the LLM API" if ends else "build it again"
    image = _image_of(built)
    return f"serve it in {image}, or {anew}" if image else anew


def another_layout(built: BuiltEngine, gpus: int | None) -> str:
    """What to do where ranks and GPUs don't go together: `gpus` GPUs, None for more than now."""
    tp = 2 * built.world_size if gpus is None else 1 << max(0, gpus.bit_length() - 1)
    smaller = "quantize it smaller, or " if gpus is None else ""
    return f"{smaller}trtbuild convert MODEL -o {CHECKPOINT} --tp {tp}, and build it again"


def anew(built: BuiltEngine, place: Place) -> str:
    """The command that builds the engine again for a place: its versions, and its GPU.

    Where those versions build no engines, the one that makes a folder for the LLM API instead. For
    an engine in a repository, the command that makes that again follows.
    """
    repository = built.repository
    if place.tensorrt_llm and not versions.has_engines(place.tensorrt_llm):
        out = f"{repository or built.path}-llmapi"
        return shlex.join(["trtbuild", "migrate", str(built.path), "--model", "MODEL", "-o", out])
    out = ENGINE if repository else str(built.path)
    words = ["trtbuild", "build", CHECKPOINT, "-o", out, "--target", "tensorrt-llm"]
    words += ["--name", built.name] if built.manifest else []
    words += _settings(built)
    if place.gpus and built.sm not in (None, *(gpu.sm for gpu in place.gpus)):
        words += ["--gpu", place.gpus[0].name]
    image = place.image or (None if place.tensorrt_llm else built.image or _image_of(built))
    words += ["--container", image] if image else []
    commands = [words, *([_repo(repository, built)] if repository else [])]
    return " && ".join(map(shlex.join, commands))


def _repo(repository: Path, built: BuiltEngine) -> list[str]:
    """The command that writes the engine's repository again, serving it by the same name."""
    words = ["trtbuild", "repo", ENGINE, "-o", str(repository)]
    ours = (repository / manifests.NAME).is_file()
    name = manifests.read(repository).about.get("name") if ours else None
    return [*words, "--name", str(name)] if name not in (None, built.name) else words


def _image_of(built: BuiltEngine) -> str | None:
    """The image with the versions that built the engine."""
    try:
        return versions.image(built.tensorrt_llm or "")
    except LimitError:
        return None


def _settings(built: BuiltEngine) -> Iterator[str]:
    """The limits as options, and as `--set` what `trtbuild build` would else choose otherwise."""
    # only a mismatch needs these, and every start of a server looks for one
    from builder.targets.tensorrt_llm.command import value_of
    from builder.targets.tensorrt_llm.config import BuildConfig
    from builder.targets.tensorrt_llm.engine_check import DERIVED
    from builder.targets.tensorrt_llm.flags import FLAGS

    config = BuildConfig.from_json(built.build_config)
    limits = {name: getattr(config, name) for name in _LIMITS}
    for name, value in limits.items():
        if value is not None and value != (1 if name == "max_beam_width" else None):
            yield from ("--" + name.replace("_", "-"), str(value))
    usual = _usual(built, limits)
    for flag in FLAGS.values():
        value = value_of(config, flag)
        if flag.name in limits or value == value_of(usual, flag):
            continue
        if built.manifest is None and flag.field in DERIVED:
            continue
        yield from ("--set", f"{flag.name}={_written(value)}")


def _usual(built: BuiltEngine, limits: dict[str, Any]) -> BuildConfig:
    """The config of a build on the same GPU that was told no more than the limits."""
    from builder.targets.tensorrt_llm.config import BuildConfig
    from builder.targets.tensorrt_llm.resolve import BuildOptions, resolve

    sm = built.sm and Gpu(name=built.gpu_name or f"sm{built.sm}", sm=built.sm, source="the engine")
    try:
        return resolve(built.checkpoint, BuildOptions(**limits, gpu=sm or None)).config
    except (TrtbuildError, KeyError):
        # an engine that our rules refuse, or that another tool made of what we don't know
        return BuildConfig()


def _written(value: Any) -> str:
    if value is None or value is False:
        return "disable"
    if value is True:
        return "enable"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
