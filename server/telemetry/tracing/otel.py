"""Spans by OpenTelemetry: the only file that imports it, and only where traces are asked for.

The SDK's own settings (OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER, OTEL_EXPORTER_OTLP_HEADERS …) hold.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from server.telemetry.tracing.base import RawHeaders, RequestTrace, context

_SERVICE = "trtbuild"
_CLOSE_SECONDS = 5.0
_FIRST_SERVER_ERROR = 500
_W3C = TraceContextTextMapPropagator()


class OpenTelemetryTracer:
    """A SERVER span for each HTTP request, and a CLIENT span in it for what Triton is asked."""

    def __init__(self, processor: SpanProcessor) -> None:
        resource = Resource.create()
        if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: _SERVICE}))
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer(_SERVICE)

    def request(self, headers: RawHeaders, *, method: str, path: str) -> RequestTrace:
        """A trace of its own, or a part of the caller's."""
        span = self._tracer.start_span(
            f"{method} {path}",
            context=_W3C.extract(context(headers)),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": method, "http.route": path, "url.path": path},
        )
        return _Spans(self._tracer, span)

    def close(self) -> None:
        """Send what is left; a collector that isn't there is waited for no longer than seconds."""
        sending = threading.Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        sending.join(_CLOSE_SECONDS)


class _Spans:
    """One request's."""

    def __init__(self, tracer: trace.Tracer, server: Span) -> None:
        self._tracer, self._server = tracer, server
        self._client: Span | None = None

    @property
    def recording(self) -> bool:
        return self._server.is_recording()

    @property
    def trace_id(self) -> str:
        return trace.format_trace_id(self._server.get_span_context().trace_id)

    def headers_for_triton(self) -> Mapping[str, str]:
        carrier: dict[str, str] = {}
        _W3C.inject(carrier, trace.set_span_in_context(self._client or self._server))
        return carrier

    def generating(self, attributes: Mapping[str, Any]) -> None:
        operation, model = attributes["gen_ai.operation.name"], attributes["gen_ai.request.model"]
        self._client = self._tracer.start_span(
            f"{operation} {model}",
            context=trace.set_span_in_context(self._server),
            kind=SpanKind.CLIENT,
            attributes=attributes,
        )

    def generated(self, attributes: Mapping[str, Any], *, error: str | None = None) -> None:
        if self._client:
            self._client.set_attributes(attributes)
            _end(self._client, error)

    def end(self, *, status: int | None, error: str | None) -> None:
        if status is not None:
            self._server.set_attribute("http.response.status_code", status)
        # what a client did wrong is no failure of the server's span
        ours = status is None or status >= _FIRST_SERVER_ERROR
        _end(self._server, error if ours else None)


def exporting(endpoint: str) -> OpenTelemetryTracer:
    """A tracer that sends its spans to `endpoint`, by OTLP over HTTP, in the background."""
    return OpenTelemetryTracer(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))


def _end(span: Span, error: str | None) -> None:
    if error:
        span.set_attribute("error.type", error)
        span.set_status(Status(StatusCode.ERROR))
    span.end()
