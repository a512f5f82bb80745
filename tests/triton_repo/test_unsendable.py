"""Promise: a response that Triton can't take ends in an error for its client, never in silence."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from backend_repository import BEAMS, engine, inputs, one, serving
from running import client, tensors
from test_robustness import in_small_shm

pytestmark = pytest.mark.triton

SCRIPT = """
    import os, sys, json
    from pathlib import Path
    sys.path[:0] = {path!r}
    import numpy as np
    from backend_repository import inputs, one, serving
    from running import infer, stream

    beams = dict(beam_width=one({beams}, np.int32), return_generation_logits=one(True, np.bool_))

    def tell(triton, tokens, **more):
        asked = inputs([5, 6, 7], tokens, **more)
        try:
            if {decoupled}:
                return len(stream(triton, "tensorrt_llm", asked))
            return infer(triton, "tensorrt_llm", asked).as_numpy("output_ids").size
        except Exception as error:
            return str(error)

    with serving(Path({engine!r}), Path({folder!r}), decoupled={decoupled}) as triton:
        found = {{"before": tell(triton, 10)}}
        with open("/dev/shm/full", "wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
        found["full"] = tell(triton, 400, **beams)
        found["small"] = tell(triton, 10)
        os.unlink("/dev/shm/full")
        found["same"] = triton.restarts == 0
    print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def built(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return engine(tiny_models["llama"], tmp_path_factory.mktemp("unsendable"))


@pytest.mark.parametrize("decoupled", [True, False])
def test_an_answer_larger_than_the_shared_memory_is_an_error_and_others_go_on(
    decoupled: bool, built: Path, tmp_path: Path
) -> None:
    """The logits of three beams of 400 tokens, 1.8 MB: more than Triton begins with."""
    text = SCRIPT.format(
        path=sys.path,
        beams=BEAMS,
        engine=str(built),
        folder=str(tmp_path),
        decoupled=decoupled,
    )
    result: subprocess.CompletedProcess[str] = in_small_shm(
        12_288, sys.executable, "-c", textwrap.dedent(text)
    )
    found = json.loads(result.stdout or "{}")
    assert found, result.stderr
    assert found["before"] == found["small"] == (1 if decoupled else 10)
    # of a model that isn't decoupled, Triton takes one response, and no error in its place
    assert ("shared memory" if decoupled else "expected a single response") in str(found["full"])
    assert found["same"]


def test_a_stop_of_a_model_that_is_not_decoupled_is_answered(built: Path, tmp_path: Path) -> None:
    with serving(built, tmp_path, decoupled=False) as triton:
        stop = inputs([5, 6, 7], 1, stop=one(True, np.bool_))
        with client(triton) as connection:
            result = connection.infer(
                "tensorrt_llm", tensors(stop), request_id="a", client_timeout=60
            )
        assert not result.get_response().outputs
