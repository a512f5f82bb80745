"""Free ports for servers that are to come back on the same ones, and what is wrong with others."""

from __future__ import annotations

import random
import socket
from pathlib import Path

_LOWEST = 10_000
_ATTEMPTS = 200


def free_ports(host: str, count: int) -> list[int]:
    """`count` different ports that nobody listens on now.

    They lie below the kernel's range for outgoing connections: from that range, a client that
    retries while the server is down could be given the server's own port. Raises OSError where
    none is found.
    """
    chosen: list[int] = []
    highest = _outgoing_start() - 1
    for _ in range(_ATTEMPTS):
        port = random.randint(_LOWEST, highest)
        if port not in chosen and trouble(host, port) is None:
            chosen.append(port)
        if len(chosen) == count:
            return chosen
    raise OSError(f"no free ports between {_LOWEST} and {highest}")


def _outgoing_start() -> int:
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        first = 32_768
    # a machine with an unusual range leaves us no room below it
    return first if first > _LOWEST + 1_000 else 32_768


def trouble(host: str, port: int) -> str | None:
    """Why a server couldn't listen on `port` now; None where it could."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # as servers do, so that a port with connections in TIME_WAIT counts as free
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.strerror or str(error)
    return None
