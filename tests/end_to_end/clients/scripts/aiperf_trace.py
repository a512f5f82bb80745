"""Reads recordings as aiperf does, with its own loader of traces, and prints what it would ask."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from aiperf.dataset.loader.models import MooncakeTrace
from aiperf.dataset.loader.mooncake_trace import MooncakeTraceDatasetLoader


def read(line: str) -> dict[str, Any]:
    """What aiperf makes of a line."""
    content = json.loads(line)
    assert MooncakeTraceDatasetLoader.can_load(content), "it would be taken for another format"
    trace = MooncakeTrace.model_validate(content)
    return trace.model_dump(include={*MooncakeTrace.model_fields}, exclude_none=True)


def main() -> None:
    """{name: lines} of {name: a recording's path}."""
    paths: dict[str, str] = json.loads(sys.argv[1])
    texts = {name: Path(path).read_text() for name, path in paths.items()}
    print(json.dumps({name: [*map(read, text.splitlines())] for name, text in texts.items()}))


if __name__ == "__main__":
    main()
