"""The figures of a report that are looked for first, as they are shown on a screen and a page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from quantize.evaluate import AGREEMENT, KL, PERPLEXITY
from quantize.report import Report, percent

NOT_MEASURED = "not measured"


@dataclass(frozen=True, kw_only=True)
class Line:
    """A figure. `note` says of one that wasn't measured why."""

    title: str
    figure: str
    note: str = ""


def headline(report: Report) -> tuple[Line, ...]:
    """Perplexities, KL divergence, agreement and sizes; each is there, measured or not."""
    found = report.evaluation
    kl = found.kl if found else None
    source, quantized = f"source_{PERPLEXITY}", f"quantized_{PERPLEXITY}"
    asked = f" (of {found.agreement_positions:,} positions)" if found else ""
    figures: tuple[tuple[str, tuple[str, ...], float | None, Callable[[float], str]], ...] = (
        ("perplexity of the source", (source,), found.source_perplexity if found else None, _three),
        (
            "perplexity, quantized",
            (quantized,),
            found.quantized_perplexity if found else None,
            _three,
        ),
        (
            "its increase",
            (source, quantized),
            found.perplexity_increase if found else None,
            percent,
        ),
        ("KL divergence, mean (nats)", (KL,), kl.mean if kl else None, _four_digits),
        ("KL divergence, median", (KL,), kl.median if kl else None, _four_digits),
        ("KL divergence, 99th percentile", (KL,), kl.p99 if kl else None, _four_digits),
        ("KL divergence, largest", (KL,), kl.max if kl else None, _four_digits),
        (f"top-1 agreement{asked}", (AGREEMENT,), found.agreement if found else None, percent),
        ("size of the source's weights on disk", ("size",), report.source.size_bytes, _megabytes),
        ("size, quantized", ("size",), report.quantized.size_bytes, _megabytes),
        ("size, quantized over source", ("size",), report.size_ratio, _three),
    )
    return tuple(_line(report, *figure) for figure in figures)


def _line(
    report: Report,
    title: str,
    names: tuple[str, ...],
    value: float | None,
    form: Callable[[float], str],
) -> Line:
    if value is not None:
        return Line(title=title, figure=form(value))
    missing = report.missing
    reasons = [missing[name] for name in (*names, "evaluation") if name in missing]
    return Line(title=title, figure=NOT_MEASURED, note=next(iter(reasons), ""))


def _three(value: float) -> str:
    return f"{value:.3f}"


def _four_digits(value: float) -> str:
    return f"{value:.4g}"


def _megabytes(value: float) -> str:
    return f"{value / 1e6:,.1f} MB"
