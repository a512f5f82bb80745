"""Waiting for models to leave Triton's memory, never without limit.

A request holds its model. Triton (2.51) also keeps one for ever whose client cancelled the gRPC
stream just after the last response: only a restart ends that.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from triton_repo.control.client import Control, ModelVersion

_POLL_S = 0.1
_SAY_S = 10.0
WHY = (
    "requests go on, or a client cancelled its stream in the moment of its end, which Triton keeps"
    " in mind until it is started again"
)
"""Why a model may still be there."""


def drain(
    control: Control,
    leaving: Callable[[ModelVersion], bool],
    *,
    limit_s: float,
    say: Callable[[str], None],
) -> tuple[ModelVersion, ...]:
    """Wait until no version is in memory that is `leaving`; those that are after `limit_s`.

    What is waited for is told to `say` at times. Raises LaunchError where Triton doesn't answer.
    """
    began = time.monotonic()
    told = began
    while True:
        left = tuple(each for each in control.index() if leaving(each) and not each.gone)
        now = time.monotonic()
        if not left or now - began >= limit_s:
            return left
        if now - told >= _SAY_S:
            told = now
            say(f"waiting for {listed(left)}: {now - began:.0f} of {limit_s:g} s")
        time.sleep(_POLL_S)


def listed(versions: tuple[ModelVersion, ...]) -> str:
    """Versions of models in words."""
    return ", ".join(f"{each.name} {each.version} ({each.state.lower()})" for each in versions)
