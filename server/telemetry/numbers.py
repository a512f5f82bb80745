"""One worker's own numbers, as those who measure know them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from server.telemetry import instruments as the
from server.telemetry.line_file import LineFile
from server.telemetry.measurement import Measurement
from server.telemetry.tally import Tally


class Numbers:
    """Belongs to the worker's event loop. `served` are a model's name → all that clients may call
    it; None takes any name."""

    def __init__(self, served: Mapping[str, tuple[str, ...]] | None) -> None:
        self.tally = Tally()
        names = None if served is None else {name for own in served.values() for name in own}
        self._known = names
        self._waiting: Callable[[], int] = lambda: 0
        self._files: Mapping[str, LineFile] = {}
        self._measured: set[Measurement] = set()
        for name in sorted(names or ()):
            self.tally.set(the.IN_FLIGHT, name, value=0)

    def watch_waiting(self, waiting: Callable[[], int]) -> None:
        """Where to ask how many requests wait for a place in flight."""
        self._waiting = waiting

    def watch_lost(self, files: Mapping[str, LineFile]) -> None:
        """Which files to ask how many lines couldn't be written, by what labels call them."""
        self._files = files

    def label(self, model: str) -> str:
        """`model` as labels have it: "" for what isn't served, which clients could make up."""
        return model if self._known is None or model in self._known else ""

    def refused(self, endpoint: str, outcome: str) -> None:
        """Count a request that ended before there was anything to measure of it."""
        self.tally.add(the.REQUESTS, "", endpoint, outcome)

    def begun(self, measurement: Measurement) -> None:
        """A request is in flight now."""
        self._measured.add(measurement)
        self.tally.add(the.IN_FLIGHT, measurement.model)

    def ended(self, measurement: Measurement) -> None:
        """It isn't any more."""
        self._measured.discard(measurement)
        self.tally.add(the.IN_FLIGHT, measurement.model, amount=-1)

    def snapshot(self) -> Tally:
        """The numbers as they are now, with what requests in flight have so far."""
        self.tally.set(the.WAITING, value=self._waiting())
        for name, file in self._files.items():
            self.tally.set(the.LOST_LINES, name, value=file.lost)
        snapshot = self.tally.copy()
        for seen in self._measured:
            snapshot.add(the.GENERATED_TOKENS, seen.model, amount=seen.generated_tokens)
            snapshot.distribution(the.ITL, seen.model).sum += seen.between_tokens_seconds
        return snapshot
