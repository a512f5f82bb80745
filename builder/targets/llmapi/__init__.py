"""Target `llmapi`: a Hugging Face folder and checked settings, for TensorRT-LLM without engines."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from builder import artifact
from builder import manifest as manifests
from builder.artifact import Staging
from builder.convert import model_name
from builder.manifest import Manifest, identity
from builder.targets.llmapi.files import link, refuse_overlap, stored
from builder.targets.llmapi.model import HfModel
from builder.targets.llmapi.resolved import HERE, LlmApiOptions, Resolved, place, resolve
from builder.targets.llmapi.rules import Values

__all__ = ["LlmApiOptions", "Resolved", "build", "render", "resolve"]

SETTINGS_FILE = "model.yaml"


def render(model: Path, *, options: LlmApiOptions | None = None, name: str | None = None) -> str:
    """The text of the `model.yaml` that `build` would write (its dry run). Raises as `resolve`."""
    return resolve(model, options).text(name or _name(model))


def build(
    model: Path, out: Path, *, options: LlmApiOptions | None = None, name: str | None = None
) -> Manifest:
    """Write the folder: `model.yaml`, the tokenizer and, for a copy, the model and its adapters.

    A referenced model is known by the sizes and times of its files, its weights aren't read. Does
    nothing when `out` is already what it would write. Raises as `resolve`, and OutputError when
    the folder can't be written, or is one that is read.
    """
    options = options or LlmApiOptions()
    resolved = resolve(model, options)
    refuse_overlap(out, (model, *resolved.adapters))
    wanted = _manifest(resolved, options, name)
    if found := artifact.finished(out, wanted):
        return found
    if options.copy and not _same_file_system(model, out.resolve()):
        sizes = (stored(model / name).stat().st_size for name in resolved.model.files)
        artifact.require_space(out.resolve(), sum(sizes))
    with artifact.stage(out, wanted) as staging:
        text = resolved.text(str(wanted.options["name"]))
        (staging.path / SETTINGS_FILE).write_bytes(text.encode())
        for file, read in resolved.model.tokenizer.items():
            (staging.path / file).write_bytes(read())
        if options.copy:
            _copy(resolved.model, staging)
            _copy_adapters(resolved, staging.path)
    return manifests.read(out, "engine")


def _manifest(resolved: Resolved, options: LlmApiOptions, name: str | None) -> Manifest:
    model, read = resolved.model, Values(resolved.settings)
    name = name or _name(model.path)
    since, until = resolved.needs
    lora = [identity(adapter) for adapter in resolved.adapters]
    dtype = model.dtype if read.get("dtype") == "auto" else read.get("dtype")
    return Manifest(
        kind="engine",
        made_by={"trtbuild": manifests.own_version()},
        source={**identity(model.path), **({"lora": lora} if lora else {})},
        options={
            "target": "llmapi",
            "name": name,
            "settings": json.loads(json.dumps(resolved.settings)),
            "model": "copy" if options.copy else "reference",
        },
        about={
            "name": name,
            "target": "llmapi",
            "model_path": HERE if options.copy else str(model.path.resolve()),
            "architecture": model.architecture,
            **({"dtype": dtype} if dtype else {}),
            "quant_algo": model.quantization,
            "tp": read.get("tensor_parallel_size"),
            "pp": read.get("pipeline_parallel_size"),
            "cp": read.get("context_parallel_size"),
            "ep": read.set("moe_expert_parallel_size") or 1,
            "world_size": read.get("tensor_parallel_size")
            * read.get("pipeline_parallel_size")
            * read.get("context_parallel_size"),
            "limits": resolved.limits,
            "tensorrt_llm": {"since": since, "until": until},
            "notes": list(resolved.notes),
        },
    )


def _name(model: Path) -> str:
    if (model / manifests.NAME).is_file() and (named := manifests.read(model).about.get("name")):
        return str(named)
    return model_name(model)


def _copy(model: HfModel, staging: Staging) -> None:
    known = {}
    if (model.path / manifests.NAME).is_file():
        known = manifests.read(model.path).files
    for name in model.files:
        link(model.path / name, staging.path / name)
        if entry := known.get(name):
            staging.record(name, entry.digest)


def _copy_adapters(resolved: Resolved, out: Path) -> None:
    for index, adapter in enumerate(resolved.adapters):
        target = out / place(index, adapter)
        target.parent.mkdir(parents=True)
        if adapter.is_dir():
            shutil.copytree(adapter, target, copy_function=link)
        else:
            link(adapter, target)


def _same_file_system(one: Path, place: Path) -> bool:
    while not place.exists():
        place = place.parent
    return one.stat().st_dev == place.stat().st_dev
