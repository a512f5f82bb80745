"""Where a gRPC server is, and how its TLS is checked."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from server.config import TritonTls
from server.errors import UnusableSettingError


@dataclass(frozen=True, slots=True)
class Address:
    """A host, its name or number, and a port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """`host:port`, `[::1]:port`. Raises UnusableSettingError."""
        host, colon, port = text.rpartition(":")
        if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise UnusableSettingError(
                "the address of Triton's gRPC endpoint can't be used",
                found=text,
                do="give host:port",
            )
        return cls(host.removeprefix("[").removesuffix("]"), int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def context(tls: TritonTls | None) -> ssl.SSLContext | None:
    """What checks the server, None for a plain connection. Raises UnusableSettingError for files
    that don't hold what they should."""
    if tls is None:
        return None
    files = tls.ca
    try:
        made = ssl.create_default_context(cafile=files)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        made.set_alpn_protocols(["h2"])
        if tls.certificate is not None:
            files = tls.certificate
            made.load_cert_chain(files, tls.key, password="")  # it would ask for one
    except (OSError, ValueError) as error:
        raise UnusableSettingError(
            f"the TLS files for Triton can't be used: {files}", found=str(error)
        ) from error
    return made
