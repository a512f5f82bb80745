"""Traces: W3C context in, spans by OpenTelemetry where they are asked for, context on to Triton."""

from server.telemetry.tracing.base import UNTRACED, PassOn, RequestTrace, Tracer, Untraced

__all__ = ["UNTRACED", "PassOn", "RequestTrace", "Tracer", "Untraced"]
