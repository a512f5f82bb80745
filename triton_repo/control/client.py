"""Triton's model repository extension over HTTP, which never leaves the machine that serves."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import Any

from builder.errors import LaunchError
from triton_repo.control.access import Access
from triton_repo.launch.security import ADMIN_HEADER

READY, UNAVAILABLE = "READY", "UNAVAILABLE"


@dataclass(frozen=True, kw_only=True)
class ModelVersion:
    """A version of a model as Triton's index has it; not loaded ones may have no version."""

    name: str
    version: int | None
    state: str
    reason: str | None = None

    @property
    def ready(self) -> bool:
        """Whether it answers requests."""
        return self.state == READY

    @property
    def gone(self) -> bool:
        """Whether it isn't in memory, nor on its way there or away."""
        return self.state == UNAVAILABLE


class Control:
    """The models of the Triton behind `access`. Every call raises LaunchError where it refuses."""

    def __init__(self, access: Access, *, timeout_s: float = 600.0) -> None:
        self.access = access
        self._timeout_s = timeout_s

    def index(self) -> tuple[ModelVersion, ...]:
        """Every version of every model in the repository, by name and version."""
        found = json.loads(self._post("/v2/repository/index", {}))
        versions = [_version(entry) for entry in found]
        return tuple(sorted(versions, key=lambda each: (each.name, each.version or 0)))

    def load(self, model: str) -> None:
        """Load or replace a model, as its files are now; return when it is ready.

        One that is loaded goes on serving until then, and for ever where the new doesn't load.
        """
        self._post(f"/v2/repository/models/{model}/load", {})

    def unload(self, model: str) -> None:
        """Take a model away; requests under way finish, after the call has returned too."""
        self._post(f"/v2/repository/models/{model}/unload", {})

    def _post(self, path: str, body: dict[str, Any]) -> str:
        key = self.access.admin_key
        connection = http.client.HTTPConnection(self.access.http_address, timeout=self._timeout_s)
        try:
            connection.request(
                "POST", path, json.dumps(body), headers={ADMIN_HEADER: key} if key else {}
            )
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
        except TimeoutError as error:
            raise LaunchError(
                f"Triton at {self.access.http_address} gave no answer within {self._timeout_s:g} s",
                do="it may still be at it: see trtbuild models list, or give a longer --timeout",
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise LaunchError(
                f"Triton at {self.access.http_address} doesn't answer",
                found=str(error) or repr(error),
                do="see whether trtbuild serve still runs",
            ) from error
        finally:
            connection.close()
        if answer.status != 200:
            raise LaunchError("Triton refuses", found=_complaint(text, answer.status))
        return text


def _version(entry: dict[str, Any]) -> ModelVersion:
    number = str(entry.get("version") or "")
    return ModelVersion(
        name=str(entry["name"]),
        version=int(number) if number.isdigit() else None,
        state=str(entry.get("state") or UNAVAILABLE),
        reason=entry.get("reason") or (None if entry.get("state") else "not loaded"),
    )


def _complaint(text: str, status: int) -> str:
    try:
        return " ".join(str(json.loads(text)["error"]).split())
    except (ValueError, KeyError, TypeError):
        return f"status {status}"
