"""A streamed answer's text, as any client reads it: what is fast must be right."""

from __future__ import annotations

import http.client
import json

from proxying.load import http_request
from proxying.setting import MODEL


def streamed_text(port: int, tokens: int) -> str:
    """The deltas of one streamed chat answer, joined."""
    body = http_request(MODEL, "Say it.", tokens, "/").partition(b"\r\n\r\n")[2]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
    with connection.getresponse() as answer:
        lines = answer.read().decode().splitlines()
    connection.close()
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    return "".join(event["choices"][0]["delta"].get("content") or "" for event in events)
