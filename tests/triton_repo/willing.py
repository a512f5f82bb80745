"""Stands for a running Triton that does as it is told, where only the repository's files matter."""

from __future__ import annotations

from triton_repo.control.access import Access
from triton_repo.control.client import Control, ModelVersion


class Willing(Control):
    """Keeps what was loaded; has nothing to drain but what is `held`, for ever."""

    def __init__(self, *, model_control: bool = True) -> None:
        super().__init__(
            Access(pid=0, http_address="", grpc_address="", model_control=model_control)
        )
        self.loaded: list[str] = []
        self.held: tuple[ModelVersion, ...] = ()

    def index(self) -> tuple[ModelVersion, ...]:
        return self.held

    def load(self, model: str) -> None:
        self.loaded.append(model)

    def unload(self, model: str) -> None:
        pass
