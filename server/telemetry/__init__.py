"""What the proxy tells about itself: metrics, traces, an access log and a recording of its load.

Once a worker, `telemetry = Telemetry(config)`, `await telemetry.start()` and `.close()`; whoever
measures has `telemetry.metrics`, whose `await metrics.text()` is /metrics.

For each HTTP request, `exchange = telemetry.arrived(scope, …)`, and `telemetry.over(exchange)` when
it has ended, whoever answered it: that counts, logs and records it and ends its trace. Meanwhile
authentication says `exchange.key = name`, admission `exchange.queued_seconds`, a refusal
`exchange.failed(error, status)`, and the layer that sends says `exchange.status`.

Whoever generates enters `RequestMeter(metrics, model=…, endpoint=…, exchange=exchange_of(scope))`
for as long as that takes, and tells it what happens; its `headers_for_triton()` are the `trace` of
what Triton is asked.
"""

from server.telemetry.exchange import CANCELLED, OK, Exchange, exchange_of
from server.telemetry.meter import RequestMeter
from server.telemetry.metrics import CONTENT_TYPE, Metrics
from server.telemetry.telemetry import Telemetry

__all__ = [
    "CANCELLED",
    "CONTENT_TYPE",
    "OK",
    "Exchange",
    "Metrics",
    "RequestMeter",
    "Telemetry",
    "exchange_of",
]
