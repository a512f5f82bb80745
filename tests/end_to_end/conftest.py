"""The whole stack, as a user starts it: `trtbuild up` on the real model, a real Triton."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from stack import Stack, running


@pytest.fixture(scope="module")
def stack(smollm2_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """SmolLM2 in float32, so that its tokens can be compared."""
    work = tmp_path_factory.mktemp("work")
    with running(smollm2_gguf, work, "--dtype", "float32", "--max-seq-len", "2048") as started:
        yield started
