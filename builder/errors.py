"""The one error tree. Every error says what was wrong, what was found and what to do.

TrtbuildError                      exit code 1
├── ModelError                     the source model can't be used
│   ├── UnknownFamilyError         its architecture is not known
│   └── CorruptFileError           a file of it is truncated or not what it says
├── ArtifactError                  a checkpoint, engine or repository is not whole or doesn't fit
├── LimitError                     what was asked for doesn't fit the model, the engine or memory
├── OutputError                    the output can't be written (disk full, no permission)
├── MissingToolError               something that the step needs isn't installed
├── LaunchError                    Triton or the proxy didn't start or didn't stay up
└── RequestError                   a request to an engine or to the proxy is refused
"""

from __future__ import annotations


class TrtbuildError(Exception):
    """Base of all errors that are the user's to read: one line, no traceback.

    `what` was wrong, what was `found` instead, what to `do` next.
    """

    exit_code = 1

    def __init__(self, what: str, *, found: str | None = None, do: str | None = None) -> None:
        self.what, self.found, self.do = what, found, do
        parts = [what]
        if found:
            parts.append(f"found {found}")
        if do:
            parts.append(do)
        super().__init__("; ".join(parts))


class ModelError(TrtbuildError):
    """The source model can't be used."""


class UnknownFamilyError(ModelError):
    """The model's architecture has no family table."""


class CorruptFileError(ModelError):
    """A file is truncated or is not what its name says."""


class ArtifactError(TrtbuildError):
    """A checkpoint, an engine or a repository is not whole, or doesn't fit its use."""


class LimitError(TrtbuildError):
    """What was asked for exceeds the model, the engine or the memory."""


class OutputError(TrtbuildError):
    """The output can't be written."""


class MissingToolError(TrtbuildError):
    """A program or package that this step needs isn't installed."""


class LaunchError(TrtbuildError):
    """Triton or the proxy didn't start, or didn't stay up."""


class RequestError(TrtbuildError):
    """A request is refused; `param` names the offending field in the caller's own terms."""

    def __init__(
        self,
        what: str,
        *,
        param: str | None = None,
        found: str | None = None,
        do: str | None = None,
    ) -> None:
        super().__init__(what, found=found, do=do)
        self.param = param
