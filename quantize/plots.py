"""The report's plots as PNG files: the one place that draws."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from builder.errors import MissingToolError
from quantize.evaluate import Distribution, Stretch
from quantize.weight_error import WeightError

_KL, _AGREEMENT, _LINES = "#c2410c", "#1d4ed8", "#64748b"


def profile(stretches: Sequence[Stretch]) -> bytes:
    """KL divergence and agreement by the position in the sequence."""
    figure, axes = _figure(2)
    places = [(each.begin + each.end) / 2 for each in stretches]
    kl, agreement = axes
    _line(kl, places, [each.kl for each in stretches], _KL)
    kl.set_ylabel("KL divergence (nats)")
    kl.set_ylim(0, 1.1 * max((each.kl or 0) for each in stretches) or None)
    _line(
        agreement,
        places,
        [None if each.agreement is None else 100 * each.agreement for each in stretches],
        _AGREEMENT,
    )
    agreement.set_ylabel("top-1 agreement (%)")
    agreement.set_ylim(top=100.5)
    agreement.set_xlabel("position in the sequence")
    return _png(figure)


def divergence(kl: Distribution) -> bytes:
    """How many positions have which KL divergence."""
    figure, (axis,) = _figure(1)
    widths = [end - begin for begin, end in zip(kl.edges, kl.edges[1:], strict=False)]
    axis.bar(kl.edges[:-1], kl.counts, width=widths, align="edge", color=_KL, linewidth=0)
    axis.set_xscale("log")
    filled = [index for index, count in enumerate(kl.counts) if count]
    axis.set_xlim(kl.edges[filled[0]], kl.edges[filled[-1] + 1])
    for label, value, style in (("mean", kl.mean, "-"), ("p99", kl.p99, "--")):
        axis.axvline(max(value, kl.edges[0]), color=_LINES, linestyle=style, label=label)
    axis.legend(frameon=False)
    axis.set_xlabel("KL divergence of a position (nats)")
    axis.set_ylabel("positions")
    return _png(figure)


def weights(errors: Sequence[WeightError]) -> bytes:
    """Each linear's weight error, in the order of the layers, a colour for each kind of linear."""
    figure, (axis,) = _figure(1)
    for kind in sorted({kind_of(each) for each in errors}):
        ours = sorted((each.layer or 0, each.relative) for each in errors if kind_of(each) == kind)
        axis.plot(*zip(*ours, strict=True), marker="o", markersize=3, linewidth=1, label=kind)
    axis.set_ylim(0, 1.1 * max(each.relative for each in errors) or None)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_xlabel("layer")
    axis.set_ylabel("relative weight error")
    axis.legend(frameon=False, fontsize="small")
    return _png(figure)


def kind_of(error: WeightError) -> str:
    """What is the same in all layers: attention.qkv, mlp.fc, …"""
    parts = error.module.removeprefix("transformer.layers.").split(".")
    return ".".join(part for part in parts if not part.isdigit())


def _line(axis: Any, places: list[float], values: list[float | None], color: str) -> None:
    known = [(x, y) for x, y in zip(places, values, strict=True) if y is not None]
    if known:
        axis.plot(*zip(*known, strict=True), color=color, marker="o", markersize=3, linewidth=1)


def _figure(rows: int) -> tuple[Any, Any]:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingToolError(
            "the report's plots need matplotlib", do="pip install 'trtbuild[quantize]'"
        ) from None
    figure = Figure(figsize=(7, 2.4 + 1.6 * (rows - 1)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.3)
    return figure, axes


def _png(figure: Any) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=144, metadata={"Software": None})
    return content.getvalue()
