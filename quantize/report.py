"""The report on a quantization: what is in it, whether it keeps its limits, and report.json.

report.json, version 1 (a name may be added in it, none changes its meaning; a figure that wasn't
measured is null, and `not_measured` says why):

    format        "trtbuild quantization report"
    version       1
    source, quantized
                  {name, kind: "torch" | "checkpoint" | "endpoint" | "not run",
                  path: text | null, size_bytes: whole number | null (of weights)}
    size_ratio    quantized over source
    recipe        text | null
    settings      {name: value}, of the calibration
    perplexity    {source, quantized, increase: 0.02 is 2 %}
    kl            {mean, median, p99, max, edges: [n + 1], counts: [n]}, nats
    agreement     0 to 1, and agreement_positions
    sequences, tokens, positions
    profile       [{begin, end, positions, kl, agreement}], by position in the sequence
    weight_errors [{module, rank, layer, relative, largest}], the worst first
    limits        {max_ppl_increase, min_agreement}
    passed        true | false, and failures: [text]
    versions      {tool: version}
    not_measured  {figure: reason}; figures as in `Evaluation.missing`, or "evaluation", "size",
                  "weight_errors"

The figures are defined at `quantize.evaluate.Evaluation` and `quantize.weight_error.WeightError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from builder.errors import LimitError
from quantize.evaluate import Evaluation
from quantize.weight_error import WeightError

JSON, HTML = "report.json", "report.html"
FORMAT, VERSION = "trtbuild quantization report", 1


@dataclass(frozen=True, kw_only=True)
class Model:
    """One of the two. `kind` is how it was run: a scorer's, or NOT_RUN."""

    name: str
    kind: str
    path: str | None = None
    size_bytes: int | None = None


NOT_RUN = "not run"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a quantization may cost at most; None is no limit. 0.02 is 2 %."""

    max_ppl_increase: float | None = None
    min_agreement: float | None = None


@dataclass(frozen=True, kw_only=True)
class Report:
    """What is to be reported.

    `settings` are the calibration's; `not_measured` says of "evaluation", "size" and
    "weight_errors" why they are None, where they are.
    """

    source: Model
    quantized: Model
    evaluation: Evaluation | None = None
    weight_errors: tuple[WeightError, ...] | None = None
    recipe: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    not_measured: Mapping[str, str] = field(default_factory=dict)

    @property
    def size_ratio(self) -> float | None:
        """The quantized weights' bytes over the source's."""
        if not self.source.size_bytes or self.quantized.size_bytes is None:
            return None
        return self.quantized.size_bytes / self.source.size_bytes

    @property
    def missing(self) -> dict[str, str]:
        """Figure → why it wasn't measured."""
        return {**(self.evaluation.missing if self.evaluation else {}), **self.not_measured}


def passes(report: Report) -> bool:
    """Whether the quantization keeps the report's limits."""
    return not failures(report)


def failures(report: Report) -> list[str]:
    """Each limit that isn't kept, in a sentence. What wasn't measured keeps no limit."""
    found, limits = report.evaluation, report.limits
    increase = found.perplexity_increase if found else None
    agreement = found.agreement if found else None
    told = []
    if limits.max_ppl_increase is not None:
        allowed = f"the limit is {percent(limits.max_ppl_increase)}"
        if increase is None:
            told.append(f"the perplexity's increase was not measured; {allowed}")
        elif increase > limits.max_ppl_increase:
            told.append(f"the perplexity grew by {percent(increase)}; {allowed}")
    if limits.min_agreement is not None:
        least = f"the least allowed is {percent(limits.min_agreement)}"
        if agreement is None:
            told.append(f"the agreement was not measured; {least}")
        elif agreement < limits.min_agreement:
            told.append(f"the models agree on {percent(agreement)} of tokens; {least}")
    return told


def fraction(text: str) -> float:
    """A part of a whole: "2%" and "0.02" are 0.02. Raises LimitError for what isn't one."""
    number, is_percent = text.strip().removesuffix("%"), text.strip().endswith("%")
    try:
        value = float(number) / (100 if is_percent else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise LimitError("a limit must be a percentage or a fraction, as 2% or 0.02", found=text)
    return value


def as_json(report: Report) -> dict[str, Any]:
    """The content of report.json."""
    found = report.evaluation
    told = failures(report)
    return {
        "format": FORMAT,
        "version": VERSION,
        "source": asdict(report.source),
        "quantized": asdict(report.quantized),
        "size_ratio": report.size_ratio,
        "recipe": report.recipe,
        "settings": dict(report.settings),
        "perplexity": {
            "source": found.source_perplexity if found else None,
            "quantized": found.quantized_perplexity if found else None,
            "increase": found.perplexity_increase if found else None,
        },
        "kl": asdict(found.kl) if found and found.kl else None,
        "agreement": found.agreement if found else None,
        "agreement_positions": found.agreement_positions if found else None,
        "sequences": found.sequences if found else None,
        "tokens": found.tokens if found else None,
        "positions": found.positions if found else None,
        "profile": [asdict(each) for each in found.profile] if found else None,
        "weight_errors": None
        if report.weight_errors is None
        else [asdict(each) for each in report.weight_errors],
        "limits": asdict(report.limits),
        "passed": not told,
        "failures": told,
        "versions": dict(report.versions),
        "not_measured": report.missing,
    }


def percent(part: float) -> str:
    """0.0213 → 2.13 %."""
    return f"{100 * part:.2f} %"
