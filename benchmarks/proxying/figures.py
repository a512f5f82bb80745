"""What is printed: figures, each with what it should be."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure; without `least` and `most` it is told, not judged."""

    name: str
    value: float
    unit: str
    least: float | None = None
    most: float | None = None
    note: str = ""

    @property
    def missed(self) -> bool:
        """Whether it isn't what it should be."""
        low = self.least is not None and self.value < self.least
        return low or (self.most is not None and self.value > self.most)

    @property
    def target(self) -> str:
        """In words."""
        if self.least is not None:
            return f">= {self.least:,g}"
        return "" if self.most is None else f"<= {self.most:,g}"


def table(figures: list[Figure]) -> str:
    """A line each."""
    rows = [
        (
            one.name,
            f"{one.value:,.0f}" if one.value >= 1000 else f"{one.value:.3g}",
            one.unit,
            one.target,
            "MISSED" if one.missed else "",
            one.note,
        )
        for one in figures
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place == 1 else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
