"""How a long step tells its caller how far it is, without knowing how that is shown."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called as `progress(done, total)`; the unit (bytes, layers, …) is the step's own."""


def silent(done: int, total: int) -> None:
    """The progress of a step that nobody watches."""
