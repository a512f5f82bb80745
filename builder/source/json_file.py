"""A JSON file of a model folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from builder.errors import ModelError


def parsed(path: Path) -> Any:
    """The file's content. Raises ModelError where it isn't JSON."""
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ModelError(
            f"{path} is not valid JSON", found=str(error), do="download it again"
        ) from error
