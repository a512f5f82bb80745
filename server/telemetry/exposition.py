"""Numbers to Prometheus's text format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from server.telemetry.instruments import Instrument
from server.telemetry.tally import Distribution, Tally

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def expose(metrics: Iterable[Metric]) -> bytes:
    """Families as text."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(list(metrics)))
    text: bytes = generate_latest(registry)
    return text


def families(tally: Tally, instruments: Iterable[Instrument]) -> Iterator[Metric]:
    """The instruments that have numbers."""
    for instrument in instruments:
        if instrument.kind == "histogram":
            yield from _histogram(instrument, tally)
        else:
            yield from _number(instrument, tally)


class _Collected(Collector):
    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _number(instrument: Instrument, tally: Tally) -> Iterator[Metric]:
    series = tally.numbers.get(instrument.name)
    if series:
        kind = CounterMetricFamily if instrument.kind == "counter" else GaugeMetricFamily
        family = kind(instrument.name, instrument.help, labels=instrument.labels)
        for labels, value in series.items():
            family.add_metric(labels, value)
        yield family


def _histogram(instrument: Instrument, tally: Tally) -> Iterator[Metric]:
    series = tally.distributions.get(instrument.name)
    if series:
        family = HistogramMetricFamily(instrument.name, instrument.help, labels=instrument.labels)
        for labels, distribution in series.items():
            family.add_metric(labels, _buckets(distribution), distribution.sum)
        yield family


def _buckets(distribution: Distribution) -> list[tuple[str, float]]:
    bounds = [*map(floatToGoString, distribution.bounds), "+Inf"]
    return list(zip(bounds, accumulate(distribution.counts), strict=True))
