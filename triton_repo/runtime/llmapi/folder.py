"""The folder that the model lies in, which is the engine: its settings, adapters and limits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter of the model, by the name and number that the repository's manifest has."""

    name: str
    number: int
    path: str


class EngineFolder:
    """`model.yaml`, without what is Triton's, and what else is known of the engine.

    Paths in `model.yaml` are relative to the folder; here they are absolute.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.about: dict[str, Any] = _json(self.path / "trtbuild.json").get("about", {})
        self.settings: dict[str, Any] = yaml.safe_load((self.path / "model.yaml").read_text())
        triton = self.settings.pop("triton_config", None) or {}
        self.cancellation_check_period_ms = int(triton.get("cancellation_check_period_ms", 100))
        self.processors: dict[str, str] = self.settings.pop("logits_post_processors", None) or {}
        speculative = self.settings.get("speculative_config") or {}
        for holder, name in (
            (self.settings, "model"),
            (self.settings, "tokenizer"),
            (speculative, "speculative_model"),
        ):
            if holder.get(name):
                holder[name] = self._place(holder[name])
        lora = self.settings.get("lora_config") or {}
        if lora.get("lora_dir"):
            lora["lora_dir"] = [self._place(folder) for folder in lora["lora_dir"]]
        self.adapters = _adapters(lora.get("lora_dir") or ())
        self.adapters_source = str(lora.get("lora_ckpt_source") or "hf")
        ends = _json(self.path / "generation_config.json").get("eos_token_id")
        self.further_ends: list[int] = ends[1:] if isinstance(ends, list) else []
        limits = self.about.get("limits") or {}
        self.max_input_len: int | None = limits.get("max_input_len")
        self.max_beam_width: int = limits.get("max_beam_width") or 1

    def _place(self, path: str) -> str:
        """What is here by its whole path; else it is elsewhere, or a hub's name."""
        return str((self.path / path).resolve()) if (self.path / path).exists() else path


def _adapters(folders: Sequence[str]) -> tuple[Adapter, ...]:
    """They count from 1; of several with the same name, the later have their number behind it."""
    found: dict[str, Adapter] = {}
    for number, folder in enumerate(folders, start=1):
        name = Path(folder).name
        name = f"{name}-{number}" if name in found else name
        found[name] = Adapter(name, number, folder)
    return tuple(found.values())


def _json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return content
