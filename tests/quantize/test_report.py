"""Promise: a report says every figure, to programs and people, and never makes one up."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builder.errors import LimitError, OutputError
from quantize.evaluate import Evaluation, evaluate
from quantize.report import (
    NOT_RUN,
    Limits,
    Model,
    Report,
    as_json,
    failures,
    fraction,
    passes,
)
from quantize.report_folder import write
from quantize.report_headline import headline
from quantize.weight_error import WeightError

PNGS = ("by_position.png", "kl_divergence.png", "weight_error.png")
VOID = {"meta", "img", "br", "link", "hr", "input"}


class Noisy:
    """A model whose logits are the same numbers with more or less noise."""

    kind = "noisy"

    def __init__(self, name: str, noise: float) -> None:
        self.name, self.noise = name, noise

    def logits(self, tokens: Any) -> Any:
        random = np.random.default_rng(len(tokens))
        same, own = random.normal(size=(2, len(tokens), 50))
        return (3 * same + self.noise * own).astype(np.float32)


def evaluation() -> Evaluation:
    sequences = [np.arange(40, dtype=np.int64), np.arange(25, dtype=np.int64)]
    return evaluate(Noisy("source", 0), Noisy("<b>quantized</b>", 0.5), sequences)


MEASURED = Report(
    source=Model(name="source", kind="noisy", path="/models/a", size_bytes=1_000_000),
    quantized=Model(name="<b>quantized</b>", kind="noisy", path="/b", size_bytes=250_000),
    evaluation=evaluation(),
    weight_errors=tuple(
        WeightError(
            module=f"transformer.layers.{layer}.{name}",
            rank=0,
            layer=layer,
            relative=0.1 / (layer + 1),
            largest=0.2,
        )
        for layer in range(6)
        for name in ("attention.qkv", "mlp.fc")
    ),
    recipe="int8_sq",
    settings={"samples": 128, "alpha": 0.5},
    versions={"trtbuild": "9.8.7"},
)
UNMEASURED = Report(
    source=Model(name="a", kind=NOT_RUN, size_bytes=10),
    quantized=Model(name="b", kind=NOT_RUN),
    not_measured={
        "evaluation": "NVFP4 runs on a GPU only",
        "size": "unknown",
        "weight_errors": "w",
    },
)


class Page(HTMLParser):
    """Raises for tags that don't match; keeps text and what the page refers to."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def page(report: Report, folder: Path) -> Page:
    write(report, folder)
    return Page((folder / "report.html").read_text())


def numbers(content: Any) -> list[float]:
    """Every number in a JSON value."""
    if isinstance(content, dict):
        return [number for value in content.values() for number in numbers(value)]
    if isinstance(content, list):
        return [number for value in content for number in numbers(value)]
    return [content] if type(content) in (int, float) else []


def test_the_page_is_well_formed_and_refers_to_nothing_outside(tmp_path: Path) -> None:
    found = page(MEASURED, tmp_path)
    assert len(found.references) == len(PNGS)
    assert all(each.startswith("data:image/png;base64,") for each in found.references)
    assert "script" not in found.tags
    assert "link" not in found.tags
    html = (tmp_path / "report.html").read_text()
    assert "http://" not in html
    assert "https://" not in html
    assert "url(" not in html


def test_the_page_reads_on_a_phone_and_in_the_dark(tmp_path: Path) -> None:
    write(MEASURED, tmp_path)
    html = (tmp_path / "report.html").read_text()
    assert 'name="viewport" content="width=device-width' in html
    assert "prefers-color-scheme: dark" in html


def test_every_figure_of_the_json_is_on_the_page(tmp_path: Path) -> None:
    found = page(MEASURED, tmp_path)
    content = json.loads((tmp_path / "report.json").read_text())
    assert len(numbers(content)) > 100
    for number in numbers(content):
        assert json.dumps(number) in found.text
    for line in headline(MEASURED):
        assert line.title in found.text
        assert line.figure in found.text


def test_the_headline_is_the_definition_rounded(tmp_path: Path) -> None:
    shown = {line.title: line.figure for line in headline(MEASURED)}
    found = MEASURED.evaluation
    assert found is not None
    assert found.kl is not None
    assert shown["perplexity of the source"] == f"{found.source_perplexity:.3f}"
    assert shown["KL divergence, mean (nats)"] == f"{found.kl.mean:.4g}"
    assert shown["size, quantized over source"] == "0.250"
    assert shown["size, quantized"] == "0.2 MB"
    assert all(line.figure != "not measured" for line in headline(MEASURED))


def test_a_name_is_text_and_never_markup(tmp_path: Path) -> None:
    found = page(MEASURED, tmp_path)
    assert "<b>quantized</b>" in found.text


def test_the_plots_lie_beside_it_as_png(tmp_path: Path) -> None:
    write(MEASURED, tmp_path)
    for name in PNGS:
        content = (tmp_path / name).read_bytes()
        assert content.startswith(b"\x89PNG\r\n\x1a\n")
        width, height = struct.unpack(">II", content[16:24])
        assert width > 500
        assert height > 200


def test_what_was_not_measured_is_said_and_is_never_zero(tmp_path: Path) -> None:
    found = page(UNMEASURED, tmp_path)
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["perplexity"] == {"source": None, "quantized": None, "increase": None}
    for name in ("kl", "agreement", "profile", "weight_errors", "size_ratio", "positions"):
        assert content[name] is None
    assert content["not_measured"]["evaluation"] == "NVFP4 runs on a GPU only"
    lines = {line.title: line for line in headline(UNMEASURED)}
    assert lines["KL divergence, mean (nats)"].figure == "not measured"
    assert lines["KL divergence, mean (nats)"].note == "NVFP4 runs on a GPU only"
    assert lines["size of the source's weights on disk"].figure == "0.0 MB"
    assert "NVFP4 runs on a GPU only" in found.text
    assert not list(tmp_path.glob("*.png"))


def test_a_figure_that_one_model_does_not_give_has_its_own_reason() -> None:
    assert MEASURED.evaluation is not None
    partial = replace(
        MEASURED.evaluation,
        quantized_perplexity=None,
        kl=None,
        missing={"quantized_perplexity": "no echo", "kl": "no logits"},
    )
    lines = {line.title: line for line in headline(replace(MEASURED, evaluation=partial))}
    assert lines["perplexity of the source"].note == ""
    assert lines["perplexity, quantized"].note == lines["its increase"].note == "no echo"
    assert lines["KL divergence, largest"].note == "no logits"


def test_a_second_report_replaces_the_first(tmp_path: Path) -> None:
    write(MEASURED, tmp_path)
    write(UNMEASURED, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json"]


def test_the_same_report_gives_the_same_bytes(tmp_path: Path) -> None:
    write(MEASURED, tmp_path / "one")
    write(MEASURED, tmp_path / "two")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="can't write"):
        write(UNMEASURED, tmp_path / "file" / "report")


def test_the_json_says_which_format_it_is() -> None:
    content = as_json(MEASURED)
    assert (content["format"], content["version"]) == ("trtbuild quantization report", 1)
    assert content["versions"] == {"trtbuild": "9.8.7"}
    assert content["settings"] == {"samples": 128, "alpha": 0.5}


@pytest.mark.parametrize(
    ("text", "expected"), [("2%", 0.02), ("0.02", 0.02), (" 1.5 % ", 0.015), ("0", 0.0)]
)
def test_a_limit_is_a_percentage_or_a_fraction(text: str, expected: float) -> None:
    assert fraction(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "two", "%", "-1%", "nan", "inf", "2%%"])
def test_what_is_no_limit_is_refused(text: str) -> None:
    with pytest.raises(LimitError, match="as 2% or"):
        fraction(text)


def test_limits_are_kept_or_not() -> None:
    found = MEASURED.evaluation
    assert found is not None
    increase, agreement = found.perplexity_increase, found.agreement
    assert increase is not None
    assert agreement is not None

    def limited(**limits: float) -> Report:
        return replace(MEASURED, limits=Limits(**limits))

    assert passes(MEASURED)
    assert passes(limited(max_ppl_increase=increase, min_agreement=agreement))
    assert not passes(limited(max_ppl_increase=increase - 0.001))
    assert not passes(limited(min_agreement=agreement + 0.001))
    told = failures(limited(max_ppl_increase=increase - 1, min_agreement=1))
    assert len(told) == 2
    assert as_json(limited(min_agreement=1))["passed"] is (agreement == 1)


def test_what_was_not_measured_keeps_no_limit() -> None:
    strict = replace(UNMEASURED, limits=Limits(max_ppl_increase=0.5, min_agreement=0.1))
    assert len(failures(strict)) == 2
    assert passes(UNMEASURED)
