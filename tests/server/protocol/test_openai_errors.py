from __future__ import annotations

import json

import pytest

import server.errors
from builder.errors import RequestError
from server.protocol.openai_errors import SHAPES, render, shape


def kinds() -> list[type[RequestError]]:
    values = vars(server.errors).values()
    return [v for v in values if isinstance(v, type) and issubclass(v, RequestError)]


@pytest.mark.parametrize("kind", [k for k in kinds() if k is not RequestError])
def test_every_error_of_the_proxy_has_its_own_row(kind: type[RequestError]) -> None:
    assert kind in SHAPES


@pytest.mark.parametrize("kind", SHAPES)
def test_every_row_is_of_a_known_error_and_renders_all_four_keys(kind: type[RequestError]) -> None:
    assert kind in kinds()
    body = json.loads(render(kind("wrong", param="p")))
    row = SHAPES[kind]
    assert body == {"error": {"message": "wrong", "type": row.type, "param": "p", "code": row.code}}


def test_an_unknown_kind_takes_its_nearest_row_else_internal() -> None:
    class Special(server.errors.OverloadedError):
        pass

    assert shape(Special("x")).status == 429
    assert shape(RequestError("x")).status == 500


def test_what_an_error_echoes_of_a_request_is_bounded() -> None:
    error = server.errors.InvalidRequestError("x" * 10**6, param="y" * 10**6)
    assert len(render(error)) < 3000
