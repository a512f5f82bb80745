"""What Triton tells a Python model at its start."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Arguments:
    """The arguments of `initialize`: the model's parameters, unset ones as their defaults."""

    def __init__(self, args: Mapping[str, str]) -> None:
        self.config: dict[str, Any] = json.loads(args["model_config"])
        self._repository = Path(args["model_repository"]).parent

    def text(self, name: str, default: str = "") -> str:
        """A parameter's value; upstream's templates leave an unset one as `${name}`."""
        value: str = self.config["parameters"].get(name, {}).get("string_value", "")
        return default if not value or value.startswith("${") else value

    def flag(self, name: str, *, default: bool) -> bool:
        """A parameter that is true or false."""
        return self.text(name, str(default)).lower() in ("true", "1", "yes", "t")

    def path(self, name: str) -> Path:
        """A parameter that is a path; relative ones begin at the repository."""
        return self._repository / self.text(name)
