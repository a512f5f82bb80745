"""Strings that a model wrote without JSON's escapes, told as JSON while they come."""

from __future__ import annotations

import json

from server.text.scan.markers import is_cut, markers
from server.text.scan.scanner import Scan, Scanner


def told(scanner: Scanner, *ends: str) -> Scan[bool]:
    """The text up to one of `ends`, as arguments; whether its end came.

    The quotes around it are the caller's.
    """
    stops = markers(*ends)
    while True:
        found = stops.find(scanner.text, scanner.at)
        _tell(scanner, found.start if found else len(scanner.text))
        if found and found.whole:
            scanner.at = found.end
            return True
        if not (yield from scanner.more()):
            break
    if not (scanner.cut and found and is_cut(scanner.text[scanner.at :])):
        _tell(scanner, len(scanner.text))
    return False


def _tell(scanner: Scanner, stop: int) -> None:
    scanner.arguments(json.dumps(scanner.text[scanner.at : stop], ensure_ascii=False)[1:-1])
    scanner.at = stop
