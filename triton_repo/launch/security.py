"""Who may do what at Triton's ports: TLS for gRPC, a key for the endpoints that change the server.

Triton takes the key on its command line alone, which everyone on the machine can read (not so in a
container): it keeps out the network, not the neighbours. Its HTTP and metrics ports know no TLS.
"""

from __future__ import annotations

import contextlib
import ipaddress
import secrets
import ssl
from dataclasses import dataclass
from pathlib import Path

from builder.errors import ArtifactError
from triton_repo.runtime import GRPC_CERTIFICATE, GRPC_KEY

ADMIN_HEADER = "trtbuild-admin-key"
"""The HTTP header that carries the key; in gRPC's metadata it is `GRPC_ADMIN_HEADER`."""
GRPC_ADMIN_HEADER = f"triton-grpc-protocol-{ADMIN_HEADER}"
ADMIN_APIS = ("model-repository", "shared-memory", "logging", "trace")
"""What changes the server, or lets it read and write other memory. The names are Triton's."""


@dataclass(frozen=True, kw_only=True)
class ServerTls:
    """PEM files for the gRPC endpoint. With `client_ca`, clients need a certificate of its."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def require_files(self) -> None:
        """Raise ArtifactError for a file that isn't there: Triton's own words name none."""
        for path in filter(None, (self.certificate, self.key, self.client_ca)):
            if not path.is_file():
                raise ArtifactError(f"{path} is needed for TLS", found="no such file")

    def models_are_let_in(self) -> bool:
        """Whether `client_ca` takes the server's own certificate, which its models show."""
        if self.client_ca is None:
            return True
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname = False
        client.verify_mode, server.verify_mode = ssl.CERT_NONE, ssl.CERT_REQUIRED
        try:
            for side in (server, client):
                side.load_cert_chain(self.certificate, self.key, password="")
            server.load_verify_locations(self.client_ca)
            _shake_hands(server, client)
        except ssl.SSLCertVerificationError:
            return False
        except (OSError, ValueError):
            pass  # what is wrong with the files Triton says
        return True


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    """In memory; three turns of each are enough. Raises SSLError where one refuses the other."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = (
        client.wrap_bio(to_client, to_server),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    for side in sides * 3:
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()


def new_key() -> str:
    """A key that nobody guesses."""
    return secrets.token_urlsafe(32)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def environment(tls: ServerTls | None) -> dict[str, str]:
    """What models that call others over gRPC need: they trust the endpoint's own certificate, and
    show it where clients need one."""
    if tls is None:
        return {}
    return {GRPC_CERTIFICATE: str(tls.certificate.resolve()), GRPC_KEY: str(tls.key.resolve())}


def arguments(admin_key: str | None, tls: ServerTls | None) -> list[str]:
    """tritonserver's flags for them."""
    words = []
    if admin_key:
        rule = f"{','.join(ADMIN_APIS)}:{ADMIN_HEADER}={admin_key}"
        words += [f"--http-restricted-api={rule}", f"--grpc-restricted-protocol={rule}"]
    if tls:
        words += [
            "--grpc-use-ssl=true",
            f"--grpc-server-cert={tls.certificate.resolve()}",
            f"--grpc-server-key={tls.key.resolve()}",
        ]
        if tls.client_ca:
            words += ["--grpc-use-ssl-mutual=true", f"--grpc-root-cert={tls.client_ca.resolve()}"]
    return words
