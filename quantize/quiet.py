"""What libraries print and warn goes to the log, not to the user's screen."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

LOG = logging.getLogger("trtbuild.quantize")
_CHATTY = ("transformers", "accelerate", "modelopt")


class _ToLog(io.TextIOBase):
    """A stream whose lines are logged."""

    def write(self, text: str) -> int:
        """Log each line of `text`; progress bars' carriage returns end a line too."""
        for line in text.replace("\r", "\n").splitlines():
            if line.strip():
                LOG.debug("%s", line)
        return len(text)


@contextmanager
def quiet() -> Iterator[None]:
    """Have what the body prints and warns logged at debug level."""
    levels = {name: logging.getLogger(name).level for name in _CHATTY}
    stream = _ToLog()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(stream),
        contextlib.redirect_stderr(stream),
    ):
        warnings.simplefilter("always")
        warnings.showwarning = _log_warning
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


def _log_warning(message: Warning | str, *_: object, **__: object) -> None:
    LOG.debug("%s", message)
