"""Promise: a crowd of streams gets no wrong token, leaks nothing, and leaves every slot free.

`benchmarks/soak.py` for a shorter time than its own five minutes, with fewer streams.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parents[2] / "benchmarks" / "soak.py"

pytestmark = [pytest.mark.triton, pytest.mark.slow]


@pytest.mark.timeout(1800)
def test_a_crowd_of_streams_gets_its_own_tokens_and_leaves_nothing_behind(tmp_path: Path) -> None:
    options = ["--minutes", "2", "--streams", "100", "--waiting", "1000"]
    run = subprocess.run(
        [sys.executable, str(SOAK), *options, "--work", str(tmp_path), "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout, run.stderr
    told = json.loads(run.stdout)
    assert told["violations"] == []
    assert run.returncode == 0
    assert set(told["kinds"]) >= {"greedy", "stop words", "end id", "sampled", "log probs"}
    assert set(told["kinds"]) >= {
        "adapter",
        "ensemble, whole",
        "tensorrt_llm_bls, stream, stop string",
    }
    assert all(kind["right"] for kind in told["kinds"].values())
    assert told["waiting"]["answered"] == 1000
    assert told["waiting"]["most_blocks_used"] <= told["waiting"]["blocks"]
