"""Which TensorRT-LLM lies in which Triton container, with which TensorRT and CUDA.

An engine runs only under the versions that built it, so a container is chosen by them. Source:
the compatibility matrix of Triton's documentation (`docs/introduction/compatibility.md`, the
`trtllm-python-py3` containers, as of 26.08), and for drivers NVIDIA's CUDA Compatibility guide.
What a machine really has is asked of the machine (`builder.machine`), never read here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from builder.errors import LimitError

LAST_WITH_ENGINES = "1.2.1"
"""The last stable TensorRT-LLM with the engine compiler and with Triton's C++ backend."""

REPOSITORY = "nvcr.io/nvidia/tritonserver"
FLAVOUR = "trtllm-python-py3"
RELEASE_IMAGE = "nvcr.io/nvidia/tensorrt-llm/release"
"""TensorRT-LLM's own images, tagged with its version. They hold no Triton."""


@dataclass(frozen=True, kw_only=True)
class Release:
    """A TensorRT-LLM and what its containers hold; `driver` is the one that CUDA was made with.

    `triton` are the tags (YY.MM) of its Triton containers, newest first.
    """

    tensorrt_llm: str
    tensorrt: str | None
    cuda: str | None
    driver: str | None
    python: str | None
    triton: tuple[str, ...]


def _row(
    tensorrt_llm: str, tensorrt: str, cuda: str, driver: str, python: str, *triton: str
) -> Release:
    return Release(
        tensorrt_llm=tensorrt_llm,
        tensorrt=tensorrt,
        cuda=cuda,
        driver=driver,
        python=python,
        triton=triton,
    )


RELEASES: tuple[Release, ...] = (
    _row(
        *("1.2.1", "10.14.1.48", "13.1.0.036", "590.44.01", "3.12.3"),
        *("26.07", "26.06", "26.05", "26.04"),
    ),
    _row("1.2.0", "10.14.1.48", "13.1.0.036", "590.44.01", "3.12.3", "26.03"),
    _row("1.1.0", "10.13.3.9", "13.0.2.006", "580.95.05", "3.12.3", "26.02", "26.01", "25.12"),
    _row("1.0.3.2510", "10.13.3.9", "13.0.2.006", "580.95.05", "3.12.3", "25.11"),
    _row("1.0.0", "10.11.0.33", "12.9.1.010", "575.57.08", "3.12.3", "25.10", "25.09"),
    _row("0.21.0", "10.11.0.33", "12.9.0.043", "575.51.03", "3.12.3", "25.08"),
    _row("0.20.0", "10.10.0.31", "12.9.0.036", "575.51.03", "3.12.3", "25.07", "25.06"),
    _row("0.19.0", "10.9.0.34", "12.8.1.012", "570.124.06", "3.12.3", "25.05"),
    _row("0.18.2", "10.9.0.34", "12.8.1.012", "570.124.06", "3.12.3", "25.04"),
    _row("0.18.0", "10.9.0.34", "12.8.1.012", "570.124.06", "3.12.3", "25.03"),
    _row("0.17.0.post1", "10.8.0.43", "12.8.0.038", "570.86.10", "3.12.3", "25.02"),
    _row("0.17.0", "10.8.0.43", "12.8.0.038", "570.86.10", "3.12.3", "25.01"),
    _row("0.16.0", "10.7.0", "12.6.3", "560.35.05", "3.12.3", "24.12"),
    _row("0.15.0", "10.6.0", "12.6.3", "555.42.06", "3.10.12", "24.11"),
    _row("0.14.0", "10.4.0", "12.5.1.007", "555.42.06", "3.10.12", "24.10"),
    _row("0.13.0", "10.4.0", "12.5.1.007", "555.42.06", "3.10.12", "24.09"),
    _row("0.12.0", "10.3.0", "12.5.1.007", "555.42.06", "3.10.12", "24.08"),
    _row("0.11.0", "10.1.0", "12.4.1.003", "550.54.15", "3.10.12", "24.07"),
    _row("0.10.0", "10.0.1", "12.4.0.041", "550.54.14", "3.10.12", "24.06"),
)
"""Newest first. 0.9.0 is left out: its two containers have two versions of TensorRT."""

OLDEST_DRIVERS: Mapping[int, str] = {11: "450.80.02", 12: "525.60.13", 13: "580.65.06"}
"""CUDA's major version → the oldest driver that runs all of its minor versions."""


def numbers(version: str) -> tuple[int, ...]:
    """A version as numbers that compare: "580.65.06" is (580, 65, 6), "1.3.0rc4" (1, 3, 0)."""
    leading = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, leading[0].split("."))) if leading else ()


def has_engines(tensorrt_llm: str) -> bool:
    """Whether this TensorRT-LLM surely builds and runs engines. A probe knows more of a 1.3rc."""
    return numbers(tensorrt_llm)[:3] <= numbers(LAST_WITH_ENGINES)


def release(tensorrt_llm: str) -> Release:
    """The release of that TensorRT-LLM version. Raises LimitError where no container has it."""
    for each in RELEASES:
        if each.tensorrt_llm == tensorrt_llm:
            return each
    if numbers(tensorrt_llm) and not has_engines(tensorrt_llm):
        raise LimitError(
            f"TensorRT-LLM {tensorrt_llm} has no engine compiler that can be relied on",
            found=f"a version after {LAST_WITH_ENGINES}",
            do=f"use {LAST_WITH_ENGINES}, or trtbuild build --target llmapi",
        )
    known = ", ".join(each.tensorrt_llm for each in RELEASES)
    raise LimitError(
        f"no Triton container is known with TensorRT-LLM {tensorrt_llm}",
        do=f"choose one of {known}",
    )


def release_of_image(image_or_tag: str) -> Release:
    """What an image holds, by its tag.

    Takes a full name in any registry, a tag ("26.07-trtllm-python-py3"), its date ("26.07") or a
    TensorRT-LLM version ("1.2.1"). Raises LimitError for an image whose name doesn't say.
    """
    name = image_or_tag.partition("@")[0].strip()
    place, _, tag = name.rpartition(":") if ":" in name.rpartition("/")[2] else ("", "", name)
    if place.endswith(RELEASE_IMAGE.partition("/")[2]):
        return release(tag)
    if re.fullmatch(r"\d+\.\d+\.\d+\S*", tag) and not place:
        return release(tag)
    dated = re.fullmatch(rf"(\d\d\.\d\d)(?:-{FLAVOUR}.*)?", tag)
    if not dated or (place and FLAVOUR not in tag):
        raise LimitError(
            f"the name {image_or_tag} doesn't say which TensorRT-LLM is in the image",
            do=f"give a tag of {REPOSITORY}, such as {_tag(RELEASES[0])}, or its date",
        )
    for each in RELEASES:
        if dated[1] in each.triton:
            return each
    raise LimitError(
        f"what the container {dated[1]} holds is not known",
        found=f"containers from {RELEASES[-1].triton[-1]} to {RELEASES[0].triton[0]}",
        do=f"use {RELEASES[0].triton[0]}, the newest with TensorRT-LLM {LAST_WITH_ENGINES}",
    )


def image(which: Release | str) -> str:
    """The newest Triton image of a release or version. Raises LimitError as `release` does."""
    return f"{REPOSITORY}:{_tag(release(which) if isinstance(which, str) else which)}"


def full_name(image_or_tag: str) -> str:
    """An image's name in its registry, by what `release_of_image` takes; it raises as that does."""
    if "/" in image_or_tag:
        return image_or_tag
    found, tag = release_of_image(image_or_tag), image_or_tag.partition("-")[0]
    return f"{REPOSITORY}:{tag}-{FLAVOUR}" if tag in found.triton else image(found)


def _tag(which: Release) -> str:
    return f"{which.triton[0]}-{FLAVOUR}"
