"""What Triton and TensorRT-LLM say when they fail, as our errors."""

from __future__ import annotations

import logging
import re
from typing import Final

from server.backend.http2.status import CallError, Status
from server.errors import (
    ContextLengthError,
    InternalError,
    InvalidRequestError,
    NotReadyError,
    OverloadedError,
    RequestError,
)

_log = logging.getLogger(__name__)

# The first that matches; a row per kind of error.
_BY_MESSAGE: Final[tuple[tuple[str, type[RequestError]], ...]] = (
    (r"maximum queue size|max_queue_size|queue is full", OverloadedError),
    (r"prompt length .* exceeds|exceeds .*(max_seq_len|max_input_len|maximum.*length)",
     ContextLengthError),
    (r"not healthy|no available versions|is not ready|shutting down|is closing|unknown model"
     r"|unavailable",
     NotReadyError),
    (r"unable to (parse|find)|unexpected (shape|datatype|inference input)|can't (be )?honou?r"
     r"|is not supported|must (be|lie|hold|have|not exceed) |does not go with|invalid argument"
     r"|guided_decoding_guide is not",
     InvalidRequestError),
)  # fmt: skip
_BY_STATUS: Final[dict[Status, type[RequestError]]] = {
    Status.UNAVAILABLE: NotReadyError,
    Status.NOT_FOUND: NotReadyError,
    Status.CANCELLED: NotReadyError,
    Status.DEADLINE_EXCEEDED: NotReadyError,
    Status.RESOURCE_EXHAUSTED: OverloadedError,
}
_GUIDE: Final = "guided_decoding_guide"
_UNTAKEN: Final = re.compile(r"no available versions|unknown model|is not ready", re.IGNORECASE)
_MAX_SHOWN_CHARS = 500


def error_of_message(message: str, *, guide_param: str | None = None) -> RequestError:
    """Triton's words as one of our errors; `guide_param` is what the client calls the guide."""
    shown = message[:_MAX_SHOWN_CHARS]
    for pattern, kind in _BY_MESSAGE:
        if re.search(pattern, message, re.IGNORECASE):
            return kind(shown, param=guide_param if _GUIDE in message else None)
    return InternalError("Triton failed", found=shown)


def error_of_call(error: CallError) -> RequestError:
    """A call's end as one of our errors."""
    kind = _BY_STATUS.get(error.status)
    if kind is None:
        return error_of_message(error.message)
    if not error.untaken:  # what was never sent has been told of by the channel
        _log.warning("a request to Triton broke off: %s", error.message[:_MAX_SHOWN_CHARS])
    return kind("Triton is not available", do="try again")


def says_untaken(message: str) -> bool:
    """Whether an error says that no model has seen the request."""
    return bool(_UNTAKEN.search(message))
