"""One worker's telemetry, and the beginning and the end of each HTTP request in it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import MutableMapping
from datetime import datetime, timezone
from typing import Any

from server.config import ServerConfig
from server.errors import MissingToolError, OutputError
from server.telemetry import instruments as the
from server.telemetry.access_log import AccessLog
from server.telemetry.exchange import OK, Exchange, attach, milliseconds
from server.telemetry.metrics import Metrics
from server.telemetry.recorder import Recorder
from server.telemetry.tracing import PassOn, Tracer

_OTEL_EXTRA = "pip install 'trtbuild[otel]'"


class Telemetry:
    """Metrics, traces, the access log and the recording, as `config` asks for them.

    Raises MissingToolError when traces are asked for without the packages for them, OutputError
    when a file or the workers' folder can't be written.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self.tracer = tracer_for(config)
        try:
            self.metrics = Metrics(config)
            self._log = AccessLog(config.access_log) if config.access_log else None
            self._recorder = Recorder(config.record, config) if config.record else None
        except OSError as error:
            what = "the access log, the recording or the workers' metrics can't be written"
            raise OutputError(what, found=str(error), do="choose another place") from error
        files = {"access_log": self._log, "recording": self._recorder}
        self._files = {name: file for name, file in files.items() if file}
        self.metrics.watch_lost(self._files)

    async def start(self) -> None:
        """Begin what goes on beside requests."""
        await self.metrics.start()

    async def close(self) -> None:
        """Write and send what is left; takes seconds at the most."""
        await self.metrics.close()
        await asyncio.to_thread(self.tracer.close)
        for file in self._files.values():
            await asyncio.to_thread(file.close)

    def arrived(
        self, scope: MutableMapping[str, Any], *, path: str, endpoint: str, request_id: str
    ) -> Exchange:
        """A request for a route: `path` as the route table has it, `endpoint` for metrics.

        Who it is from is the connection's peer, until somebody knows better.
        """
        method = scope["method"]
        exchange = Exchange(
            method=method,
            path=path,
            endpoint=endpoint,
            client=(scope.get("client") or ("",))[0],
            request_id=request_id,
            keeps_content=self._config.log_prompts,
            keeps_prompts=self._recorder is not None,
            keeps_body=self._recorder is not None and self._config.record_content,
            trace=self.tracer.request(scope["headers"], method=method, path=path),
        )
        return attach(scope, exchange)

    def over(self, exchange: Exchange) -> None:
        """It has been answered, or its client is gone."""
        outcome = exchange.outcome or OK
        if exchange.endpoint and not exchange.measured:
            self._count(exchange, outcome)
        exchange.trace.end(status=exchange.status, error=exchange.error_type)
        if self._log and (exchange.endpoint or outcome != OK):
            self._log.log(_entry(exchange, outcome))
        if self._recorder and exchange.prompts:
            self._recorder.record(exchange, _entry(exchange, outcome))

    def _count(self, exchange: Exchange, outcome: str) -> None:
        self.metrics.refused(exchange.endpoint, outcome)
        if exchange.error:
            self.metrics.tally.add(the.ERRORS, "", exchange.endpoint, exchange.error)


def tracer_for(config: ServerConfig) -> Tracer:
    """OpenTelemetry's where there is somewhere to send spans to. Raises MissingToolError."""
    if not config.otlp_traces_endpoint:
        return PassOn()
    try:
        from server.telemetry.tracing.otel import exporting
    except ImportError as error:
        raise MissingToolError(
            "traces need OpenTelemetry", found=str(error), do=_OTEL_EXTRA
        ) from error
    return exporting(config.otlp_traces_endpoint)


def _entry(exchange: Exchange, outcome: str) -> dict[str, Any]:
    began = datetime.fromtimestamp(exchange.began, timezone.utc)
    return {
        "time": began.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "request_id": exchange.request_id,
        "key": exchange.key or None,
        "client": exchange.client,
        "method": exchange.method,
        "route": exchange.path,
        "status": exchange.status,
        "outcome": outcome,
        "error": exchange.error,
        **exchange.facts,
        "duration_ms": milliseconds(time.perf_counter() - exchange.arrived),
        "trace_id": exchange.trace.trace_id or None,
    }
