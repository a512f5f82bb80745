"""Writes a report: report.json for programs, report.html and its plots for people."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from builder.artifact import writing
from quantize import plots
from quantize.report import HTML, JSON, Report, as_json, percent
from quantize.report_headline import NOT_MEASURED, headline

_TEMPLATE = "report.html.j2"
_CAPTIONS = {
    "by_position.png": "KL divergence and top-1 agreement by position in the sequence",
    "kl_divergence.png": "How many positions have which KL divergence",
    "weight_error.png": "Relative weight error of each linear, by layer",
}
_WORST = 10
"""Linears that are shown at once."""


def write(report: Report, folder: Path) -> None:
    """Write report.json, report.html and the plots into `folder`, report.json last.

    An earlier report there is replaced. Raises OutputError where the folder can't be written,
    MissingToolError without matplotlib.
    """
    drawn, content = _plots(report), as_json(report)
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    files = {**drawn, HTML: _page(report, content, text, drawn).encode(), JSON: text.encode()}
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name in _CAPTIONS.keys() - drawn.keys():
            (folder / name).unlink(missing_ok=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)


def _plots(report: Report) -> dict[str, bytes]:
    """File name → PNG, of those for which there are figures."""
    found, drawn = report.evaluation, {}
    if found:
        drawn["by_position.png"] = plots.profile(found.profile)
    if found and found.kl:
        drawn["kl_divergence.png"] = plots.divergence(found.kl)
    if report.weight_errors:
        drawn["weight_error.png"] = plots.weights(report.weight_errors)
    return drawn


def _page(report: Report, content: Mapping[str, Any], text: str, drawn: Mapping[str, bytes]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    page: str = environment.get_template(_TEMPLATE).render(
        content=content,
        headline=headline(report),
        not_measured=NOT_MEASURED,
        worst=_WORST,
        images={_CAPTIONS[name]: b64encode(data).decode() for name, data in drawn.items()},
        json=text,
    )
    return page
