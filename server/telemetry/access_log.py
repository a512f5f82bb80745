"""A line of JSON for each request: who asked what of which model, and how it went. No prompts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from server.telemetry.line_file import LineFile


class AccessLog(LineFile):
    """Raises OSError when the file can't be opened."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, what="access log")

    def log(self, entry: Mapping[str, Any]) -> None:
        """Log an entry, soon; what is None is left out. Never raises, never waits."""
        line = encoded(entry) + b"\n"
        self.write(lambda: line, len(line))


def encoded(entry: Mapping[str, Any]) -> bytes:
    """As JSON, without what is None."""
    told = {name: value for name, value in entry.items() if value is not None}
    try:
        return msgspec.json.encode(told)
    except (TypeError, UnicodeEncodeError):
        # a prompt may hold half a surrogate pair, which is no UTF-8
        return json.dumps(told, default=str).encode()
