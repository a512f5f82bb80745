"""Counts and distributions in plain numbers: cheap to add to, and to sum over processes."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

from server.telemetry.instruments import BY_NAME, Instrument

Labels = tuple[str, ...]


class Distribution:
    """How many values lay at or below each bound and above the one before; the last, above all."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def copy(self) -> Distribution:
        """The same numbers, apart."""
        made = Distribution.__new__(Distribution)
        made.bounds, made.counts, made.sum = self.bounds, self.counts[:], self.sum
        return made


class Tally:
    """A process's numbers, or several processes' sum. Belongs to one thread."""

    def __init__(self) -> None:
        self.numbers: dict[str, dict[Labels, float]] = {}
        self.distributions: dict[str, dict[Labels, Distribution]] = {}

    def add(self, instrument: Instrument, *labels: str, amount: float = 1) -> None:
        """Add to a counter or a gauge."""
        series = self.numbers.setdefault(instrument.name, {})
        series[labels] = series.get(labels, 0) + amount

    def set(self, instrument: Instrument, *labels: str, value: float) -> None:
        """Set a gauge."""
        self.numbers.setdefault(instrument.name, {})[labels] = value

    def distribution(self, instrument: Instrument, *labels: str) -> Distribution:
        """A histogram's numbers, to add to."""
        series = self.distributions.setdefault(instrument.name, {})
        found = series.get(labels)
        if found is None:
            found = series[labels] = Distribution(instrument.bounds)
        return found

    def copy(self) -> Tally:
        """The numbers as they are now."""
        made = Tally()
        made.numbers = {name: dict(series) for name, series in self.numbers.items()}
        made.distributions = {
            name: {labels: each.copy() for labels, each in series.items()}
            for name, series in self.distributions.items()
        }
        return made

    def merge(self, other: Tally, *, gauges: bool) -> None:
        """Add another process's numbers; without `gauges` only what it has counted."""
        for name, values in other.numbers.items():
            instrument = BY_NAME[name]
            if gauges or instrument.kind == "counter":
                for labels, value in values.items():
                    self.add(instrument, *labels, amount=value)
        for name, distributions in other.distributions.items():
            for labels, theirs in distributions.items():
                ours = self.distribution(BY_NAME[name], *labels)
                ours.counts = [a + b for a, b in zip(ours.counts, theirs.counts, strict=True)]
                ours.sum += theirs.sum

    def to_json(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "numbers": {
                name: [[list(labels), value] for labels, value in values.items()]
                for name, values in self.numbers.items()
            },
            "distributions": {
                name: [[list(labels), d.counts, d.sum] for labels, d in values.items()]
                for name, values in self.distributions.items()
            },
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Tally:
        """What `to_json` gave, by this version of the proxy. Raises KeyError, TypeError or
        ValueError for anything else."""
        tally = cls()
        for name, values in content["numbers"].items():
            for labels, value in values:
                tally.set(BY_NAME[name], *labels, value=value)
        for name, values in content["distributions"].items():
            for labels, counts, total in values:
                made = tally.distribution(BY_NAME[name], *labels)
                if len(counts) != len(made.counts):
                    raise ValueError(f"{name} has other bounds")
                made.counts, made.sum = counts, total
        return tally
