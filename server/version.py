"""trtbuild's own version, as the endpoint tells it."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version

PACKAGE = "trtbuild"


@cache
def own_version() -> str:
    """The package's; "0" where it isn't installed."""
    try:
        return version(PACKAGE)
    except PackageNotFoundError:
        return "0"
