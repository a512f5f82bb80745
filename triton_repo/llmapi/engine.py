"""What a repository needs to know of an engine folder of target `llmapi`: its manifest's facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml  # type: ignore[import-untyped]

from builder import manifest as manifests
from builder.errors import ArtifactError
from builder.manifest import Manifest

SETTINGS_FILE = "model.yaml"
TOKENIZER = "tokenizer.json"
_AGAIN = "build it with trtbuild build --target llmapi"


@dataclass(frozen=True, kw_only=True)
class LlmApiEngine:
    """An engine folder of the LLM API; limits in tokens and requests.

    `since` is the first minor version of TensorRT-LLM with all its settings, `until`, where there
    is one, the first without. `adapters` are LoRA's, by name, with the ids that requests give.
    """

    path: Path
    name: str
    max_batch_size: int
    max_seq_len: int
    max_input_len: int
    max_num_tokens: int
    max_beam_width: int
    world_size: int
    since: str
    until: str | None
    adapters: Mapping[str, int]
    manifest: Manifest
    target: str = "llmapi"


def is_llmapi(manifest: Manifest) -> bool:
    """Whether it is an engine of this target."""
    return manifest.kind == "engine" and manifest.options.get("target") == "llmapi"


def read(path: Path) -> LlmApiEngine:
    """The engine in `path`.

    Raises ArtifactError when it is another target's, lacks files, or doesn't say its limits.
    """
    manifest = manifests.read(path, "engine")
    if not is_llmapi(manifest):
        raise ArtifactError(
            f"{path} is not for the LLM API",
            found=f"target {manifest.options.get('target')}",
            do=_AGAIN,
        )
    for name in (SETTINGS_FILE, TOKENIZER):
        if not (path / name).is_file():
            raise ArtifactError(f"{path} is not a whole engine", found=f"no {name}", do=_AGAIN)
    about = manifest.about
    limits, versions = about.get("limits") or {}, about.get("tensorrt_llm") or {}
    return LlmApiEngine(
        path=path,
        name=str(about.get("name") or path.resolve().name),
        max_batch_size=_limit(path, limits, "max_batch_size"),
        max_seq_len=_limit(path, limits, "max_seq_len"),
        max_input_len=_limit(path, limits, "max_input_len"),
        max_num_tokens=_limit(path, limits, "max_num_tokens"),
        max_beam_width=_limit(path, limits, "max_beam_width"),
        world_size=int(about.get("world_size") or 1),
        since=str(versions.get("since") or "1.2"),
        until=versions.get("until"),
        adapters=adapters(yaml.safe_load((path / SETTINGS_FILE).read_text())),
        manifest=manifest,
    )


def _limit(path: Path, limits: Mapping[str, Any], name: str) -> int:
    value = limits.get(name)
    if not isinstance(value, int) or value < 1:
        raise ArtifactError(
            f"{path} doesn't say its {name}",
            found=repr(value),
            do=f"build it with --set {name}=NUMBER: its config.json has no context length",
        )
    return value


def adapters(settings: Mapping[str, Any]) -> dict[str, int]:
    """LoRA adapters of a `model.yaml` by name, with their ids, which count from 1.

    One is called as its folder is; of several with the same, the later have their id behind it.
    """
    named: dict[str, int] = {}
    folders = (settings.get("lora_config") or {}).get("lora_dir") or ()
    for number, folder in enumerate(folders, start=1):
        name = PurePosixPath(folder).name
        named[f"{name}-{number}" if name in named else name] = number
    return named
