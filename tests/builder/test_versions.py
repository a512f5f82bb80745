"""Promise: which versions lie together in which container is what Triton's documentation says."""

from __future__ import annotations

import pytest

from builder.errors import LimitError
from builder.versions import (
    LAST_WITH_ENGINES,
    OLDEST_DRIVERS,
    RELEASES,
    full_name,
    has_engines,
    image,
    numbers,
    release,
    release_of_image,
)

NVCR = "nvcr.io/nvidia/tritonserver"

MATRIX = {
    "26.07": ("1.2.1", "10.14.1.48", "13.1.0.036", "590.44.01", "3.12.3"),
    "26.04": ("1.2.1", "10.14.1.48", "13.1.0.036", "590.44.01", "3.12.3"),
    "26.03": ("1.2.0", "10.14.1.48", "13.1.0.036", "590.44.01", "3.12.3"),
    "26.02": ("1.1.0", "10.13.3.9", "13.0.2.006", "580.95.05", "3.12.3"),
    "25.12": ("1.1.0", "10.13.3.9", "13.0.2.006", "580.95.05", "3.12.3"),
    "25.11": ("1.0.3.2510", "10.13.3.9", "13.0.2.006", "580.95.05", "3.12.3"),
    "25.10": ("1.0.0", "10.11.0.33", "12.9.1.010", "575.57.08", "3.12.3"),
    "25.08": ("0.21.0", "10.11.0.33", "12.9.0.043", "575.51.03", "3.12.3"),
    "25.06": ("0.20.0", "10.10.0.31", "12.9.0.036", "575.51.03", "3.12.3"),
    "25.02": ("0.17.0.post1", "10.8.0.43", "12.8.0.038", "570.86.10", "3.12.3"),
    "24.11": ("0.15.0", "10.6.0", "12.6.3", "555.42.06", "3.10.12"),
    "24.06": ("0.10.0", "10.0.1", "12.4.0.041", "550.54.14", "3.10.12"),
}
"""Rows of docs/introduction/compatibility.md of triton-inference-server/server (26.08)."""


@pytest.mark.parametrize("tag", MATRIX)
def test_a_container_holds_what_the_matrix_says(tag: str) -> None:
    found = release_of_image(tag)
    row = (found.tensorrt_llm, found.tensorrt, found.cuda, found.driver, found.python)
    assert row == MATRIX[tag]


def test_every_month_of_the_matrix_is_in_one_release_newest_first() -> None:
    tags = [tag for each in RELEASES for tag in each.triton]
    months = [f"{year}.{month:02d}" for year in (24, 25, 26) for month in range(1, 13)]
    assert tags == sorted(months[months.index("24.06") : months.index("26.07") + 1], reverse=True)


def test_the_last_version_with_engines_is_the_newest_release() -> None:
    assert RELEASES[0].tensorrt_llm == LAST_WITH_ENGINES == "1.2.1"
    assert image(LAST_WITH_ENGINES) == f"{NVCR}:26.07-trtllm-python-py3"


@pytest.mark.parametrize(
    ("given", "version"),
    [
        (f"{NVCR}:26.05-trtllm-python-py3", "1.2.1"),
        ("26.05-trtllm-python-py3", "1.2.1"),
        ("26.05", "1.2.1"),
        ("1.1.0", "1.1.0"),
        ("mirror.local:5000/nvidia/tritonserver:25.12-trtllm-python-py3", "1.1.0"),
        ("registry/team/triton:26.03-trtllm-python-py3-ours", "1.2.0"),
        (f"{NVCR}:26.05-trtllm-python-py3@sha256:{'0' * 64}", "1.2.1"),
        ("nvcr.io/nvidia/tensorrt-llm/release:0.20.0", "0.20.0"),
    ],
)
def test_an_image_is_known_by_its_name_in_every_spelling(given: str, version: str) -> None:
    assert release_of_image(given).tensorrt_llm == version


def test_a_short_name_is_completed_to_the_image_that_was_meant() -> None:
    assert full_name("26.05") == f"{NVCR}:26.05-trtllm-python-py3"
    assert full_name("1.0.0") == f"{NVCR}:25.10-trtllm-python-py3"
    assert full_name("mirror:5000/t:26.05-trtllm-python-py3").startswith("mirror:5000/")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (f"{NVCR}:26.07-py3", "doesn't say"),
        (f"{NVCR}:26.07-vllm-python-py3", "doesn't say"),
        ("mine:latest", "doesn't say"),
        ("localhost:5000/triton", "doesn't say"),
        ("26.09", "is not known"),
        ("23.10", "is not known"),
        ("1.3.0rc15", "no engine compiler"),
        ("nvcr.io/nvidia/tensorrt-llm/release:1.4.0rc1", "no engine compiler"),
        ("0.18.1", "no Triton container"),
        ("", "doesn't say"),
    ],
)
def test_an_image_of_unknown_content_is_refused_with_one_that_would_do(
    given: str, said: str
) -> None:
    with pytest.raises(LimitError, match=said) as error:
        release_of_image(given)
    assert error.value.do
    assert "26.07" in error.value.do or "1.2.1" in error.value.do


def test_versions_compare_as_numbers() -> None:
    assert numbers("580.65.06") < numbers("580.126.09")
    assert numbers("1.3.0rc4") == (1, 3, 0)
    assert numbers("10.14.1.48") > numbers("10.9.0.34")
    assert numbers("unknown") == ()


@pytest.mark.parametrize(
    ("version", "engines"),
    [
        ("0.20.0", True),
        ("1.2.1", True),
        ("1.0.3.2510", True),
        ("1.2.2", False),
        ("1.3.0rc0", False),
        ("1.4.0rc1", False),
    ],
)
def test_only_versions_up_to_the_last_are_trusted_to_build_engines(
    version: str, engines: bool
) -> None:
    assert has_engines(version) is engines


def test_a_version_without_a_container_is_refused_by_release_and_image() -> None:
    for ask in (release, image):
        with pytest.raises(LimitError, match="no Triton container"):
            ask("1.0.1")


def test_the_driver_of_each_container_runs_its_cuda() -> None:
    for each in RELEASES:
        assert each.cuda
        assert each.driver
        assert numbers(each.driver) >= numbers(OLDEST_DRIVERS[numbers(each.cuda)[0]])
