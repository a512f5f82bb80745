"""Promise: what a start would fail for is refused before it, with what to do."""

from __future__ import annotations

import socket
from dataclasses import dataclass

import pytest

from builder.errors import LaunchError
from triton_repo.launch import preflight
from triton_repo.launch.ports import free_ports

MIB = 1 << 20


@dataclass
class Host:
    """Stands for a machine; the field of builder.machine.resources's that is looked at."""

    shm_free_bytes: int


@pytest.mark.parametrize(
    ("free_mib", "refused", "told"), [(3, True, False), (4, False, True), (16, False, False)]
)
def test_shared_memory_for_the_python_models_is_counted(
    free_mib: int, refused: bool, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A MiB for each to begin with, by triton_python_backend's default."""
    monkeypatch.setattr(preflight, "host", lambda: Host(free_mib * MIB))
    said: list[str] = []
    if refused:
        with pytest.raises(LaunchError, match=r"4 Python models.*found 3 MiB free.*--shm-size"):
            preflight.check_shared_memory(4, say=said.append)
    else:
        preflight.check_shared_memory(4, say=said.append)
    assert bool(said) == told


def test_a_port_that_is_taken_is_named_by_its_option() -> None:
    free = free_ports("127.0.0.1", 1)[0]
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        preflight.check_ports({"--http-port": ("127.0.0.1", free), "--grpc-port": ("::1", None)})
        with pytest.raises(LaunchError, match=rf"127.0.0.1:{taken}; .*in use; .*another --grpc-p"):
            preflight.check_ports(
                {"--http-port": ("127.0.0.1", free), "--grpc-port": ("127.0.0.1", taken)}
            )


def test_one_port_for_two_is_refused() -> None:
    [free] = free_ports("127.0.0.1", 1)
    with pytest.raises(LaunchError, match="--metrics-port and --http-port are the same"):
        preflight.check_ports(
            {"--http-port": ("127.0.0.1", free), "--metrics-port": ("127.0.0.1", free)}
        )
