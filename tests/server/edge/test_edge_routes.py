"""Promise: every route answers as OpenAI's clients expect, to whom it may, and says no in words."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from live_proxy import MODEL, LiveProxy, config, live_proxy, served
from small_tokenizers import byte_level, write_folder
from waiting import eventually

from server.auth.key import ApiKey, digest
from server.backend.memory import MemoryBackend, Script

TOKENIZER = byte_level()
IDS: list[int] = TOKENIZER.encode("Hi, fox", add_special_tokens=False).ids
ASK: dict[str, Any] = {"model": MODEL, "prompt": "a"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("routes"), TOKENIZER)


@asynccontextmanager
async def serving(
    folder: Path, script: Script | None = None, **values: Any
) -> AsyncIterator[tuple[LiveProxy, MemoryBackend]]:
    backend = MemoryBackend(script or Script(messages=[[token] for token in IDS]))
    async with live_proxy(config(folder, **values), backend) as proxy:
        yield proxy, backend


def key(name: str, **values: Any) -> ApiKey:
    """A key whose secret is "sk-" and its name."""
    return ApiKey(name=name, sha256=digest(f"sk-{name}"), **values)


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer sk-{name}"}


async def error_of(answer: httpx2.Response) -> tuple[int, str]:
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return answer.status_code, error["code"]


async def test_health_is_asked_by_many_names_and_methods(folder: Path) -> None:
    async with serving(folder) as (proxy, backend):
        ready = ("/health", "/health/ready", "/v2/health/ready", "/ping")
        live = ("/health/live", "/v2/health/live", "/", "/version")
        for path in (*ready, *live):
            assert (await proxy.http.get(path)).status_code == 200, path
            assert (await proxy.http.head(path)).content == b""
        assert (await proxy.http.post("/ping")).status_code == 200
        backend.is_ready = False
        for path in ready:
            assert (await proxy.http.get(path)).status_code == 503, path
        for path in live:
            assert (await proxy.http.get(path)).status_code == 200, path
        assert (await proxy.http.get("/load")).json() == {"server_load": 0}
        assert (await proxy.http.get("/version")).json()["name"] == "trtbuild"
        document = (await proxy.http.get("/openapi.json")).json()
        assert {"/v1/chat/completions", "/v1/models/{id}"} <= document["paths"].keys()
        assert (await proxy.http.get("/docs")).headers["content-type"].startswith("text/html")


async def test_what_isnt_there_is_said_in_openais_shape_with_the_methods_that_are(
    folder: Path,
) -> None:
    async with serving(folder) as (proxy, _):
        assert await error_of(await proxy.http.get("/v1/nothing")) == (404, "unknown_url")
        assert await error_of(await proxy.http.get("/v1/models/")) == (404, "model_not_found")
        wrong = await proxy.http.put("/v1/responses/resp_1")
        assert await error_of(wrong) == (405, "method_not_supported")
        assert wrong.headers["allow"] == "DELETE, GET, HEAD, OPTIONS"
        options = await proxy.http.options("/v1/chat/completions")
        assert (options.status_code, options.headers["allow"]) == (204, "OPTIONS, POST")
        form = await proxy.http.post("/v1/completions", data={"prompt": "a"})
        assert await error_of(form) == (415, "unsupported_media_type")
        deep = await proxy.http.post("/v1/completions", content=b"[" * 10_000)
        assert deep.status_code == 400


async def test_models_aliases_and_adapters_are_all_names_that_can_be_asked(folder: Path) -> None:
    models = (
        served(folder, aliases=("gpt-4o",), adapters={"sql": 7}),
        served(folder, name="second", max_seq_len=99, triton_model="tensorrt_llm_2"),
        served(folder, name="minilm", task="embed"),
    )
    async with serving(folder, models=models) as (proxy, backend):
        listed = {model.id: model async for model in proxy.openai.models.list()}
        for name in ("gpt-4o", "sql", "second"):
            answer = await proxy.openai.completions.create(model=name, prompt="a")
            assert (answer.model, answer.choices[0].text) == (name, "Hi, fox")
        unnamed = await proxy.http.post("/v1/completions", json={"prompt": "a"})
        with pytest.raises(openai.BadRequestError, match="use /v1/embeddings"):
            await proxy.openai.completions.create(model="minilm", prompt="a")
        assert (await proxy.http.get("/v1/models/second")).json()["max_model_len"] == 99
    assert list(listed) == [MODEL, "gpt-4o", "sql", "second", "minilm"]
    assert listed["sql"].model_dump()["parent"] == MODEL
    assert listed["gpt-4o"].model_dump()["parent"] is None
    assert unnamed.json()["model"] == MODEL
    assert [request.model for request in backend.requests] == [
        *["tensorrt_llm"] * 2, "tensorrt_llm_2", "tensorrt_llm",
    ]  # fmt: skip
    assert [request.adapter_id for request in backend.requests] == [None, 7, None, None]


async def test_without_a_key_of_ours_nothing_but_health_is_told(folder: Path) -> None:
    async with serving(folder, api_keys=(key("bob"),)) as (proxy, backend):
        none = await proxy.http.get("/v1/models")
        wrong = await proxy.http.post("/v1/completions", json=ASK, headers=bearer("eve"))
        with pytest.raises(openai.AuthenticationError):
            await proxy.openai.completions.create(**ASK)
        assert backend.requests == []
        for headers in (bearer("bob"), {"x-api-key": "sk-bob"}, {"authorization": "bearer sk-bob"}):
            right = await proxy.http.post("/v1/completions", json=ASK, headers=headers)
            assert right.status_code == 200
        for path in ("/health", "/version", "/metrics", "/openapi.json"):
            assert (await proxy.http.get(path)).status_code == 200, path
    for answer in (none, wrong):
        assert await error_of(answer) == (401, "invalid_api_key")
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert "eve" not in answer.text


async def test_a_key_sees_and_uses_its_own_models_alone(folder: Path) -> None:
    models = (served(folder), served(folder, name="secret", aliases=("s",)))
    bob = key("bob", models=frozenset({MODEL}))
    async with serving(folder, models=models, api_keys=(bob,)) as (proxy, backend):
        proxy.http.headers.update(bearer("bob"))
        listed = (await proxy.http.get("/v1/models")).json()["data"]
        hidden = await proxy.http.get("/v1/models/s")
        refused = await proxy.http.post("/v1/chat/completions", json={
            "model": "s", "messages": [{"role": "user", "content": "x"}],
        })  # fmt: skip
        tokens = await proxy.http.post("/tokenize", json={"model": "secret", "prompt": "x"})
    assert [model["id"] for model in listed] == [MODEL]
    assert await error_of(hidden) == (404, "model_not_found")
    assert await error_of(refused) == (403, "permission_denied")
    assert await error_of(tokens) == (403, "permission_denied")
    assert backend.requests == []


async def test_a_key_beyond_its_share_is_told_what_is_left_and_when_there_is_more(
    folder: Path,
) -> None:
    bob = key("bob", requests_per_minute=2, tokens_per_minute=1000)
    async with serving(folder, api_keys=(bob,)) as (proxy, _):
        answers = [
            await proxy.http.post("/v1/completions", json=ASK, headers=bearer("bob"))
            for _ in range(3)
        ]
    first, second, third = answers
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert await error_of(third) == (429, "rate_limit_exceeded")
    assert 1 <= int(third.headers["retry-after"]) <= 30
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert [a.headers["x-ratelimit-remaining-requests"] for a in answers] == ["1", "0", "0"]
    spent = first.json()["usage"]["total_tokens"]
    assert float(second.headers["x-ratelimit-remaining-tokens"]) == pytest.approx(
        1000 - spent, abs=100
    )
    assert int(second.headers["x-ratelimit-remaining-tokens"]) < 1000


async def test_a_keys_place_is_free_again_when_its_stream_has_ended(folder: Path) -> None:
    bob = key("bob", max_in_flight=1)
    script = Script(messages=[IDS], hang=True)
    async with serving(folder, script, api_keys=(bob,)) as (proxy, backend):
        proxy.http.headers.update(bearer("bob"))
        body = {**ASK, "stream": True}
        async with proxy.http.stream("POST", "/v1/completions", json=body) as response:
            pieces = response.aiter_raw()
            await anext(pieces)
            second = await proxy.http.post("/v1/completions", json=body)
            assert await error_of(second) == (429, "rate_limit_exceeded")
        await eventually(lambda: not backend.running)
        async with proxy.http.stream("POST", "/v1/completions", json=body) as response:
            assert response.status_code == 200


async def test_admin_routes_want_an_admins_key_and_clients_routes_a_clients(
    folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "keys.toml"
    stanza = '[[keys]]\nname = "{}"\nsha256 = "{}"\n'
    boss = stanza.format("boss", digest("sk-boss")) + "admin = true\n"
    path.write_text(boss + stanza.format("bob", digest("sk-bob")))
    values = {"api_keys_file": path, "open_metrics": False}
    async with serving(folder, **values) as (proxy, _):
        http = proxy.http
        for who in (None, "eve"):
            headers = bearer(who) if who else {}
            assert (await http.get("/metrics", headers=headers)).status_code == 401
        assert (await http.get("/metrics", headers=bearer("bob"))).status_code == 403
        assert (await http.get("/metrics", headers=bearer("boss"))).status_code == 200
        assert (await http.get("/v1/models", headers=bearer("boss"))).status_code == 403
        path.write_text(boss + stanza.format("eve", digest("sk-eve")))
        assert (await http.get("/v1/models", headers=bearer("bob"))).status_code == 200
        reloaded = await http.post("/admin/reload-keys", headers=bearer("boss"))
        assert reloaded.json() == {"keys": 2}
        assert (await http.get("/v1/models", headers=bearer("bob"))).status_code == 401
        assert (await http.get("/v1/models", headers=bearer("eve"))).status_code == 200
        path.write_text("keys = []")
        assert (await http.post("/admin/reload-keys", headers=bearer("boss"))).is_success
        assert (await http.get("/v1/models")).status_code == 401, "no keys open nothing"
        assert (await http.post("/admin/reload-keys", headers=bearer("boss"))).status_code == 401
        path.write_text(boss + stanza.format("eve", digest("sk-eve")))
        proxy.app.reload_keys()  # as SIGHUP does
        path.write_text("[[keys")
        spoilt = await http.post("/admin/reload-keys", headers=bearer("boss"))
        assert spoilt.status_code == 400
        assert (await http.get("/v1/models", headers=bearer("eve"))).status_code == 200


async def test_without_any_admins_key_nobody_is_an_admin(folder: Path) -> None:
    async with serving(folder) as (proxy, _):
        assert (await proxy.http.get("/v1/models")).status_code == 200
        for headers in ({}, bearer("boss")):
            answer = await proxy.http.post("/admin/reload-keys", headers=headers)
            assert await error_of(answer) == (401, "invalid_api_key")


async def test_pages_of_other_origins_may_call_when_they_are_named(folder: Path) -> None:
    origin = "https://chat.example"
    preflight = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-stainless-os",
    }
    async with serving(folder) as (proxy, _):
        closed = await proxy.http.get("/version", headers={"origin": origin})
    assert not [name for name in closed.headers if name.startswith("access-control")]
    values = {"cors_origins": (origin,), "api_keys": (key("bob"),)}
    async with serving(folder, **values) as (proxy, _):
        asked = await proxy.http.options("/v1/chat/completions", headers=preflight)
        stranger = await proxy.http.options(
            "/v1/chat/completions", headers={**preflight, "origin": "https://evil.example"}
        )
        refused = await proxy.http.get("/v1/models", headers={"origin": origin})
    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == origin
    assert "authorization" in asked.headers["access-control-allow-headers"].lower()
    assert "access-control-allow-origin" not in stranger.headers
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == origin, "the page may read why"
    assert "x-request-id" in refused.headers["access-control-expose-headers"].lower()


async def test_every_answer_says_which_request_it_is_of_and_how_long_it_took(folder: Path) -> None:
    async with serving(folder) as (proxy, _):
        named = await proxy.http.post("/v1/completions", json=ASK, headers={"x-request-id": "r-1"})
        stream = await proxy.http.post(
            "/v1/completions", json={**ASK, "stream": True}, headers={"x-request-id": "a b"}
        )
        missing = await proxy.http.get("/nothing")
    assert named.headers["x-request-id"] == "r-1"
    assert len(stream.headers["x-request-id"]) == len(missing.headers["x-request-id"]) == 32
    for answer in (named, stream, missing):
        assert int(answer.headers["openai-processing-ms"]) >= 0


async def test_one_too_many_waits_in_line_and_one_more_is_sent_away(folder: Path) -> None:
    script = Script(messages=[IDS], hang=True)
    limits = {"max_in_flight": 1, "max_waiting": 1}
    async with serving(folder, script, **limits) as (proxy, backend):
        first = asyncio.create_task(proxy.http.post("/v1/completions", json=ASK))
        await eventually(lambda: backend.running == 1)
        second = asyncio.create_task(proxy.http.post("/v1/completions", json=ASK))
        admission = proxy.app.serving.admission
        await eventually(lambda: admission.waiting == 1)
        third = await proxy.http.post("/v1/completions", json=ASK)
        late = {**bearer("x"), "x-request-timeout": "0.05"}
        assert await error_of(third) == (429, "rate_limit_exceeded")
        assert int(third.headers["retry-after"]) >= 1
        assert (await proxy.http.get("/load")).json() == {"server_load": 2}
        second.cancel()
        await eventually(lambda: not admission.waiting)
        timed_out = await proxy.http.post("/v1/completions", json=ASK, headers=late)
        assert await error_of(timed_out) == (504, "deadline_exceeded")
        assert len(backend.requests) == 1
        waiting = asyncio.create_task(proxy.http.post("/v1/completions", json=ASK))
        await eventually(lambda: admission.waiting == 1)
        first.cancel()
        await eventually(lambda: len(backend.requests) == 2)
        waiting.cancel()
        await eventually(lambda: not admission.in_flight)


async def test_in_its_notice_health_says_no_and_draining_nothing_new_is_taken(folder: Path) -> None:
    script = Script(messages=[[token] for token in IDS], delay_seconds=0.1)
    async with serving(folder, script, drain_notice_seconds=60) as (proxy, _):

        async def is_sick() -> bool:
            return (await proxy.http.get("/health")).status_code != 200

        body = {**ASK, "stream": True}
        async with proxy.http.stream("POST", "/v1/completions", json=body) as response:
            lines = response.aiter_lines()
            await anext(lines)
            proxy.stop.set()
            await eventually(is_sick)
            sick = await proxy.http.get("/health")
            taken = await proxy.http.post("/v1/completions", json=ASK)
            proxy.app.drain()
            refused = await proxy.http.post("/v1/completions", json=ASK)
            assert (await proxy.http.get("/health/live")).status_code == 200
            received = [line async for line in lines]
        proxy.hurry.set()
    assert await error_of(sick) == (503, "service_unavailable")
    assert (taken.status_code, taken.headers["connection"]) == (200, "close")
    assert await error_of(refused) == (503, "service_unavailable")
    assert refused.headers["connection"] == "close"
    assert "retry-after" in refused.headers
    assert received[-2:] == ["data: [DONE]", ""]


async def test_what_gets_to_no_route_is_in_the_access_log_too(folder: Path, tmp_path: Path) -> None:
    async with serving(folder, access_log=tmp_path / "log") as (proxy, _):
        await proxy.http.get("/v1/nothing", headers={"x-forwarded-for": "6.6.6.6"})
        await proxy.http.put("/v1/completions")
        await proxy.http.post("/v1/completions", json=ASK, headers={"x-request-timeout": "soon"})
    lines = list(map(json.loads, (tmp_path / "log").read_text().splitlines()))
    assert [line["status"] for line in lines] == [404, 405, 400]
    assert {line["client"] for line in lines} == {"127.0.0.1"}
