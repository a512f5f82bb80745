"""Promise: a request is one trace from its caller to Triton, in OpenTelemetry's words for AI."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from exposed import config
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.trace import SpanKind, StatusCode

from server.backend.base import Guide, Perf
from server.errors import MissingToolError, NotReadyError
from server.protocol.request import ChatPrompt, Limits, Sampling, TextRequest
from server.telemetry import RequestMeter, Telemetry
from server.telemetry.tracing.base import PassOn, RawHeaders
from server.telemetry.tracing.otel import OpenTelemetryTracer

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"

REQUEST = TextRequest(
    model="m",
    prompts=[
        ChatPrompt(
            messages=[
                {"role": "user", "content": "weather?"},
                {"role": "tool", "tool_call_id": "c1", "content": "rain"},
            ]
        )
    ],
    prompt_param="messages",
    stream=True,
    n=2,
    sampling=Sampling(
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        seed=7,
        presence_penalty=0.1,
        frequency_penalty=0.2,
    ),
    limits=Limits(max_tokens=100, stop=("END",)),
    guide=Guide(kind="json_schema", text="{}"),
)


class Traced:
    """A telemetry whose spans are kept."""

    def __init__(self, **settings: Any) -> None:
        self.telemetry = Telemetry(config(**settings))
        self._exporter = InMemorySpanExporter()
        self.telemetry.tracer = OpenTelemetryTracer(SimpleSpanProcessor(self._exporter))

    def serve(
        self,
        headers: RawHeaders = (),
        *,
        request: TextRequest = REQUEST,
        error: Exception | None = None,
    ) -> Mapping[str, str]:
        """One request; what Triton is told of its trace."""
        scope = {"type": "http", "method": "POST", "headers": list(headers)}
        exchange = self.telemetry.arrived(
            scope, path="/v1/chat/completions", endpoint="chat_completions", request_id="r"
        )
        with RequestMeter(
            self.telemetry.metrics, model="m", endpoint="chat_completions", exchange=exchange
        ) as meter:
            told = meter.headers_for_triton()
            meter.asked(request)
            meter.prompt(20)
            meter.perf(Perf(cached_tokens=16))
            for choice in range(request.n):
                meter.tokens(3, choice)
                if meter.keeps_content:
                    meter.said(choice, "wet")
                meter.finish("stop")
            if error:
                meter.failed(error, 503)
        exchange.status = 503 if error else 200
        self.telemetry.over(exchange)
        return told

    @property
    def spans(self) -> tuple[ReadableSpan, ReadableSpan]:
        """The HTTP request's and the generation's."""
        client, server = self._exporter.get_finished_spans()
        return server, client


def test_a_request_is_a_server_span_with_the_generation_as_a_client_span_in_it() -> None:
    traced = Traced()
    told = traced.serve()
    server, client = traced.spans
    assert (server.name, server.kind) == ("POST /v1/chat/completions", SpanKind.SERVER)
    assert (client.name, client.kind) == ("chat m", SpanKind.CLIENT)
    assert server.parent is None
    assert client.parent == server.context
    assert client.context
    trace, span = client.context.trace_id, client.context.span_id
    assert told["traceparent"].startswith(f"00-{trace:032x}-{span:016x}-"), "Triton's parent"
    assert server.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "url.path": "/v1/chat/completions",
        "http.response.status_code": 200,
    }


def test_the_generation_s_attributes_are_the_conventions_own() -> None:
    traced = Traced()
    traced.serve()
    attributes = dict(traced.spans[1].attributes or {})
    assert attributes.pop("gen_ai.response.time_to_first_chunk") > 0
    assert attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "nvidia.triton",
        "gen_ai.request.model": "m",
        "gen_ai.request.stream": True,
        "gen_ai.request.choice.count": 2,
        "gen_ai.request.max_tokens": 100,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.top_k": 40,
        "gen_ai.request.seed": 7,
        "gen_ai.request.presence_penalty": 0.1,
        "gen_ai.request.frequency_penalty": 0.2,
        "gen_ai.request.stop_sequences": ("END",),
        "gen_ai.output.type": "json",
        "gen_ai.response.model": "m",
        "gen_ai.response.finish_reasons": ("stop", "stop"),
        "gen_ai.usage.input_tokens": 20,
        "gen_ai.usage.output_tokens": 6,
        "gen_ai.usage.cache_read.input_tokens": 16,
    }
    known = {value for name, value in vars(gen_ai_attributes).items() if name.startswith("GEN_AI")}
    assert attributes.keys() <= known


def test_what_a_request_does_not_say_is_no_attribute() -> None:
    traced = Traced()
    traced.serve(request=TextRequest(model="m", prompts=[], prompt_param="prompt"))
    names = {name for name in traced.spans[1].attributes or {} if ".request." in name}
    assert names == {"gen_ai.request.model"}


def test_the_caller_s_trace_goes_on() -> None:
    traced = Traced()
    headers = [(b"traceparent", PARENT.encode()), (b"tracestate", b"vendor=1")]
    told = traced.serve(headers)
    server, client = traced.spans
    assert server.parent
    assert f"{server.parent.span_id:016x}" == SPAN
    assert told["traceparent"][3:35] == TRACE
    assert told["traceparent"][36:52] != SPAN
    assert told["tracestate"] == "vendor=1"
    assert client.context
    assert f"{client.context.trace_id:032x}" == TRACE


def test_an_error_of_ours_marks_both_spans() -> None:
    traced = Traced()
    traced.serve(error=NotReadyError("away"))
    for span in traced.spans:
        assert span.status.status_code == StatusCode.ERROR
        assert (span.attributes or {})["error.type"] == "NotReadyError"


def test_a_request_refused_as_wrong_is_no_failure_of_the_server() -> None:
    traced = Traced()
    scope = {"type": "http", "method": "POST", "headers": []}
    exchange = traced.telemetry.arrived(scope, path="/p", endpoint="e", request_id="r")
    exchange.failed(ValueError(), 400)
    exchange.status = 400
    traced.telemetry.over(exchange)
    [span] = traced._exporter.get_finished_spans()
    assert span.status.status_code == StatusCode.UNSET


def test_prompts_and_answers_are_in_spans_only_when_asked_for() -> None:
    silent, telling = Traced(), Traced(log_prompts=True)
    silent.serve()
    telling.serve()
    assert not any("messages" in name for name in silent.spans[1].attributes or {})
    attributes = telling.spans[1].attributes or {}
    user, tool = json.loads(str(attributes["gen_ai.input.messages"]))
    assert user == {"role": "user", "parts": [{"type": "text", "content": "weather?"}]}
    answer = {"type": "tool_call_response", "id": "c1", "response": "rain"}
    assert tool == {"role": "tool", "parts": [answer]}
    said = json.loads(str(attributes["gen_ai.output.messages"]))
    assert said == [{"role": "assistant", "parts": [{"type": "text", "content": "wet"}]}] * 2


async def test_spans_reach_a_collector() -> None:
    bodies: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        url = f"http://127.0.0.1:{server.server_port}/v1/traces"
        telemetry = Telemetry(config(otlp_traces_endpoint=url))
        exchange = telemetry.arrived(
            {"method": "GET", "headers": []}, path="/p", endpoint="e", request_id="r"
        )
        telemetry.over(exchange)
        await telemetry.close()
        server.shutdown()
        serving.join()
    [resource] = ExportTraceServiceRequest.FromString(b"".join(bodies)).resource_spans
    named = {a.key: a.value.string_value for a in resource.resource.attributes}
    assert named["service.name"] == "trtbuild"
    assert resource.scope_spans[0].spans[0].name == "GET /p"


@pytest.mark.parametrize(
    ("headers", "passed"),
    [
        ([(b"traceparent", PARENT.encode())], {"traceparent": PARENT}),
        (
            [(b"traceparent", PARENT.encode()), (b"tracestate", b"a=1"), (b"tracestate", b"b=2")],
            {"traceparent": PARENT, "tracestate": "a=1,b=2"},
        ),
        ([(b"tracestate", b"a=1")], {}),
        ([(b"traceparent", PARENT.encode())] * 2, {}),
        ([(b"traceparent", f"00-{'0' * 32}-{SPAN}-01".encode())], {}),
        ([(b"traceparent", f"ff-{TRACE}-{SPAN}-01".encode())], {}),
        ([(b"traceparent", PARENT.upper().encode())], {}),
        ([(b"traceparent", PARENT.encode() + b"\n")], {}),
        (
            [(b"traceparent", PARENT.encode()), (b"tracestate", b"x" * 600)],
            {"traceparent": PARENT},
        ),
    ],
)
def test_without_opentelemetry_a_well_formed_context_is_handed_on(
    headers: RawHeaders, passed: dict[str, str]
) -> None:
    request = PassOn().request(headers, method="POST", path="/p")
    assert request.headers_for_triton() == passed
    assert request.trace_id == (TRACE if passed else "")


def test_traces_without_the_package_stop_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.delitem(sys.modules, "server.telemetry.tracing.otel")
    with pytest.raises(MissingToolError, match=r"trtbuild\[otel\]"):
        Telemetry(config(otlp_traces_endpoint="http://127.0.0.1:9/v1/traces"))


def test_opentelemetry_is_imported_only_where_traces_are_asked_for() -> None:
    script = "import sys, server.app; sys.exit('opentelemetry' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
