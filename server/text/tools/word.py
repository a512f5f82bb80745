"""Names of functions, as formats without quotes write them."""

from __future__ import annotations

from server.text.scan.scanner import Scan, Scanner

MAX_NAME_CHARS = 256


def word(scanner: Scanner) -> Scan[str]:
    """The name at `at`: letters, digits, `_`, `-` and `.`; '' where there is none."""
    name = ""
    while len(name) < MAX_NAME_CHARS:
        letter = yield from scanner.peek()
        if not (letter.isalnum() or (letter and letter in "_-.")):
            break
        name += letter
        scanner.at += 1
    return name
