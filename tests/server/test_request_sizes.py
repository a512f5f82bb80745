"""How much one request may ask for in all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest
from live_proxy import config

from server.app import create_app
from server.backend.memory import MemoryBackend, Script


@pytest.mark.parametrize(
    ("values", "param"),
    [
        ({"prompt": ["x"] * 4}, "prompt"),
        ({"prompt": ["x"] * 3, "n": 2}, "n"),
        ({"prompt": ["x"] * 2, "n": 1, "best_of": 3}, "best_of"),
    ],
)
async def test_prompts_and_answers_beyond_the_servers_own_bounds_are_refused(
    tiny_tokenizer: Path, values: dict[str, Any], param: str
) -> None:
    settings = config(tiny_tokenizer, max_prompts=3, max_choices=5)
    transport = httpx2.ASGITransport(create_app(settings, MemoryBackend(lambda _: Script())))
    async with httpx2.AsyncClient(transport=transport, base_url="http://proxy") as client:
        response = await client.post("/v1/completions", json=values)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
