"""Promise: the flags for dividing a checkpoint mean what TensorRT-LLM's of the same names mean."""

from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner

from trtbuild import options


@click.command()
@options.layout
def layout(**chosen: Any) -> None:
    click.echo(" ".join(f"{name}={value}" for name, value in sorted(chosen.items())))


@pytest.mark.parametrize(
    ("flags", "moe_ep"),
    [
        ("--tp 4", 1),
        ("--tp 4 --moe-tp 4", 1),
        ("--tp 4 --moe-ep 4", 4),
        ("--tp 4 --moe-tp 2", 2),
        ("--tp 8 --moe-tp 2 --moe-ep 4", 4),
    ],
)
def test_of_the_expert_ranks_one_number_follows_from_the_other(flags: str, moe_ep: int) -> None:
    result = CliRunner().invoke(layout, flags.split())
    assert result.exit_code == 0, result.output
    assert f"moe_ep={moe_ep} " in result.output
    assert "moe_tp" not in result.output


@pytest.mark.parametrize("flags", ["--tp 4 --moe-tp 3", "--tp 4 --moe-tp 2 --moe-ep 4"])
def test_expert_ranks_that_do_not_add_up_are_a_wrong_usage(flags: str) -> None:
    result = CliRunner().invoke(layout, flags.split())
    assert result.exit_code == 2
    assert "--moe-tp times --moe-ep is --tp" in result.output


def test_by_default_nothing_is_divided() -> None:
    assert CliRunner().invoke(layout, []).output.split() == [
        "cp=1",
        "embedding_sharding_dim=0",
        "gpus_per_node=8",
        "moe_ep=1",
        "parallel_embedding=False",
        "pp=1",
        "tp=1",
    ]
