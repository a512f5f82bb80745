"""How to reach a running Triton, and its admin key: a file beside its log, its owner's alone.

Whoever may read the file may control the server, and nobody types addresses or keys.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from builder.artifact import writing
from builder.errors import LaunchError


@dataclass(frozen=True, kw_only=True)
class Access:
    """Addresses are host:port; `pid` is the launcher's."""

    pid: int
    http_address: str
    grpc_address: str
    admin_key: str | None = None
    model_control: bool = True


def path_of(log_path: Path) -> Path:
    """Where the file is for the server with this log."""
    return log_path.with_name(f"{log_path.name}.access.json")


def write(access: Access, log_path: Path) -> None:
    """Write it, whole or not at all. Raises OutputError."""
    path = path_of(log_path)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with writing(path):
        part.unlink(missing_ok=True)
        # nobody else's from its first byte on
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w") as file:
            json.dump(asdict(access), file)
        part.rename(path)


def remove(access: Access, log_path: Path) -> None:
    """Remove it, unless it is another server's by now."""
    with contextlib.suppress(LaunchError, OSError):
        if read(log_path) == access:
            path_of(log_path).unlink()


def read(log_path: Path) -> Access:
    """The access to the server with this log. Raises LaunchError where none runs."""
    path = path_of(log_path)
    try:
        return Access(**json.loads(path.read_text()))
    except FileNotFoundError:
        raise LaunchError(
            "no Triton to talk to",
            found=f"no {path}",
            do="start it with trtbuild serve; with a --log of its own, give the same here",
        ) from None
    except PermissionError as error:
        raise LaunchError(
            f"{path} can't be read", found="no permission", do="be the user who runs the server"
        ) from error
    except (ValueError, TypeError) as error:
        raise LaunchError(
            f"{path} can't be read", found=str(error), do="start the server again"
        ) from error
