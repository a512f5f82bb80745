"""Promise: whatever fits the document, or doesn't, is answered as the document says: no 5xx, no
status, header, media type or shape that isn't there, nothing taken that it rules out."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import told
from live_proxy import MODEL, LiveProxy

from server.openapi.bodies import BODIES

pytest.importorskip("schemathesis")

SEED = "7"
# Parameters that often rule each other out: requests are to be valid by their schema alone.
ENTANGLED = {
    *("functions", "function_call", "tool_choice", "top_logprobs", "include", "text"),
    *("response_format", "structured_outputs", "guided_json", "guided_regex", "guided_choice"),
    *("guided_grammar", "use_beam_search", "length_penalty", "early_stopping", "best_of"),
    *("prompt_logprobs", "stream_options", "min_tokens", "continue_final_message", "reasoning"),
    *("add_generation_prompt", "chat_template_kwargs", "logit_bias", "bad_words"),
    *("stop_token_ids", "previous_response_id", "prompt_cache_options", "metadata", "inputs"),
    *("truncate_prompt_tokens", "dimensions", "max_output_tokens", "max_tokens", "echo"),
}
NO_TWINS = ("--exclude-path-regex", "^/(health|v2|ping|version|tokenize|detokenize)")
SIMPLE: dict[str, dict[str, Any]] = {
    "messages": {
        "type": "array",
        "minItems": 1,
        "maxItems": 3,
        "items": {
            "type": "object",
            "properties": {
                "role": {"enum": ["system", "user", "assistant"]},
                "content": {"type": "string"},
            },
            "required": ["role", "content"],
            "additionalProperties": False,
        },
    },
    "input": {"type": "string"},
    "prompt": {"type": "string"},
    "tokens": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 300}},
    "n": {"type": "integer", "minimum": 1, "maximum": 3},
    "stop": {"type": "string", "minLength": 1, "maxLength": 9},
    "tools": {"type": "null"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return told.write(tmp_path_factory.mktemp("schemathesis"))


async def run(proxy: LiveProxy, document: dict[str, Any], tmp_path: Path, *options: str) -> str:
    """What schemathesis says of the proxy; it must be content."""
    path = tmp_path / "openapi.json"
    path.write_text(json.dumps(document))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from schemathesis.cli import schemathesis as s; s()"),
        *("run", str(path), "--url", proxy.url, "--seed", SEED, "--warnings", "off"),
        # what one parameter allows another may rule out
        *("--exclude-checks", "positive_data_acceptance", "--continue-on-failure", *options),
        cwd=tmp_path,
        env={**os.environ, "NO_PROXY": "*", "no_proxy": "*", "COLUMNS": "200"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said = (await process.communicate())[0].decode()
    assert process.returncode == 0, said
    return said


def simple(document: dict[str, Any]) -> dict[str, Any]:
    """The document with fewer parameters, whose values mostly go together."""
    document = copy.deepcopy(document)
    for name, body in BODIES.items():
        schema = document["components"]["schemas"][name]
        kept = {
            parameter: SIMPLE.get(parameter, shown)
            for parameter, shown in schema["properties"].items()
            if shown["x-fate"] == "honoured" and parameter not in ENTANGLED
        }
        model = told.ENCODER if "dimensions" in body.parameters else MODEL
        schema["properties"] = {**kept, "model": {"enum": [model, None]}}
        if name == "EmbeddingRequest":
            schema["properties"]["input"] = {"type": "string", "minLength": 1}
        if name == "TokenizeRequest":
            del schema["properties"]["messages"]
            del schema["properties"]["documents"]
            del schema["properties"]["tools"]
            schema["required"] = ["prompt"]
    return document


async def served(proxy: LiveProxy) -> set[str]:
    """The endpoints that answered something."""
    metrics = (await proxy.http.get("/metrics")).text
    found = re.findall(r'^trtbuild_requests_total\{(.*outcome="ok".*)\}', metrics, re.MULTILINE)
    return {name for line in found for name in re.findall(r'endpoint="(\w+)"', line)}


async def test_simple_requests_and_what_breaks_them(folder: Path, tmp_path: Path) -> None:
    async with told.proxy(folder) as proxy:
        document = simple((await proxy.http.get("/openapi.json")).json())
        await run(proxy, document, tmp_path, "--phases", "fuzzing,stateful", "-n", "8", *NO_TWINS)
        assert await served(proxy) >= {"chat_completions", "completions", "embeddings", "responses"}


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["coverage", "fuzzing"])
async def test_every_kind_of_request(folder: Path, tmp_path: Path, phase: str) -> None:
    async with told.proxy(folder) as proxy:
        document = (await proxy.http.get("/openapi.json")).json()
        await run(proxy, document, tmp_path, "--phases", phase, "-n", "10", *NO_TWINS)


@pytest.mark.slow
async def test_every_kind_of_parameter_that_rules_out_no_other(
    folder: Path, tmp_path: Path
) -> None:
    async with told.proxy(folder) as proxy:
        document = simple((await proxy.http.get("/openapi.json")).json())
        only_valid = ("--phases", "coverage", "--mode", "positive")
        await run(proxy, document, tmp_path, *only_valid, *NO_TWINS)
        assert await served(proxy) >= {"chat_completions", "completions", "embeddings", "responses"}
