"""Several calls, each behind a marker of its own, in a section that another marker ends."""

from __future__ import annotations

from collections.abc import Callable

from server.text.scan.scanner import Scan, Scanner


def calls(
    scanner: Scanner, call: Callable[[], Scan[bool]], *, begin: str, end: str, begun: bool = False
) -> Scan[None]:
    """Read calls by `call`, which reads on from `begin` and says whether the call's end came.

    With `begun` the first call's `begin` may have been what announced the section.
    """
    yield from scanner.after_space()
    if not (yield from scanner.literal(begin)) and not begun:
        return
    while (yield from call()):
        scanner.hold()
        yield from scanner.after_space()
        if (yield from scanner.literal(end)):
            scanner.drop()
            return
        if not (yield from scanner.literal(begin)):
            return
