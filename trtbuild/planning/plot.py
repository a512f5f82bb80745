"""A plan as a picture: where each GPU's memory goes, and what comes of it."""

from __future__ import annotations

import io
from collections.abc import Sequence

from builder.errors import MissingToolError
from trtbuild.planning.candidates import Candidate, Plan
from trtbuild.planning.recommend import Recommendation, shown
from trtbuild.planning.table import layout

PARTS = (
    ("weights", "weights_bytes", "#1d4ed8"),
    ("activations, at most", "activation_bytes", "#7c3aed"),
    ("runtime", "runtime_bytes", "#64748b"),
    ("KV cache", "kv_cache_bytes", "#15803d"),
)
_MISFIT = "#c2410c"
_GIB = 1 << 30


def draw(plan: Plan, best: Recommendation | None) -> bytes:
    """The rows that the table shows, as a PNG. Raises MissingToolError without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingToolError(
            "a plan's picture needs matplotlib", do="pip install matplotlib, or leave --png out"
        ) from None
    rows = shown(plan, best)
    figure = Figure(figsize=(10, 1.6 + 0.36 * max(1, len(rows))), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    left = [0.0] * len(rows)
    places = range(len(rows))
    for label, field, color in PARTS:
        sizes = [getattr(each.memory, field) / _GIB for each in rows]
        axis.barh(places, sizes, left=left, color=color, label=label, height=0.7)
        left = [begin + size for begin, size in zip(left, sizes, strict=True)]
    for place, (each, end) in enumerate(zip(rows, left, strict=True)):
        gpu = each.memory.gpu_bytes / _GIB
        axis.plot([gpu, gpu], [place - 0.42, place + 0.42], color="black", linewidth=1.5)
        color = "black" if each.fits else _MISFIT
        axis.text(max(gpu, end) * 1.01, place, _note(each), va="center", fontsize=8, color=color)
    axis.set_yticks(places, _names(rows, best), fontsize=8)
    axis.invert_yaxis()
    axis.set_xlim(0, 1.35 * max([*left, *(each.memory.gpu_bytes / _GIB for each in rows), 1]))
    axis.set_xlabel("GiB on each GPU (the black line: all it has)")
    axis.spines[["top", "right"]].set_visible(False)
    wish = plan.wish
    axis.margins(y=0.01)
    figure.legend(frameon=False, fontsize=8, ncols=len(PARTS), loc="outside lower center")
    axis.set_title(
        f"{plan.subject.name}: requests of {wish.input_len} + {wish.output_len} tokens; speeds are"
        " estimates",
        fontsize=10,
    )
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=144, metadata={"Software": None})
    return content.getvalue()


def _names(rows: Sequence[Candidate], best: Recommendation | None) -> list[str]:
    return [
        ("★ " if best is not None and each == best.candidate else "")
        + f"{each.gpu.name}, {each.choice.name}, {layout(each.layout)}"
        for each in rows
    ]


def _note(each: Candidate) -> str:
    if not each.fits:
        return "doesn't fit"
    speed = "" if each.full is None else f", {each.full.decode_tokens_s:,.0f} tok/s"
    return f"{each.batch_size} requests{speed}"
