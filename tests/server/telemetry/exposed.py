"""Reads what /metrics shows, with Prometheus's own parser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from server.config import ServedModel, ServerConfig

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def series(text: bytes) -> Series:
    """(name, labels) → value."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def value(found: Series, name: str, **labels: str) -> float | None:
    """One series' value; None where there is none."""
    return found.get((name, frozenset(labels.items())))


def kinds(text: bytes) -> dict[str, str]:
    """Family → its type."""
    return {f.name: f.type for f in text_string_to_metric_families(text.decode())}


def config(*names: str, **values: Any) -> ServerConfig:
    """A config that serves models of these names, by Triton models called `triton_NAME`."""
    models = tuple(
        ServedModel(
            name=name, tokenizer_dir=Path("none"), max_seq_len=64, triton_model=f"triton_{name}"
        )
        for name in names or ("m",)
    )
    return ServerConfig(**{"triton_addresses": ("127.0.0.1:1",), "models": models, **values})
