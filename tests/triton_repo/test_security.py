"""Promise: who isn't to control Triton can't, and what has TLS is not sent in the clear."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from http.client import HTTPConnection
from pathlib import Path

import grpc
import pytest
import tritonclient.grpc as grpc_client
import trustme
from running import tensors
from test_launch import X, add_model
from tritonclient.utils import InferenceServerException

from builder.errors import ArtifactError, LaunchError
from server.backend.triton import TritonBackend
from server.config import ServedModel, ServerConfig, TritonTls
from triton_repo.control import access
from triton_repo.control.client import Control
from triton_repo.launch import security
from triton_repo.launch.security import (
    ADMIN_HEADER,
    GRPC_ADMIN_HEADER,
    ServerTls,
    is_loopback,
    new_key,
)
from triton_repo.launch.triton import LaunchConfig, Triton

pytestmark = pytest.mark.filterwarnings("default::DeprecationWarning")

ADMIN_PATHS = (
    ("POST", "/v2/repository/index"),
    ("POST", "/v2/repository/models/echo/unload"),
    ("POST", "/v2/repository/models/echo/load"),
    ("GET", "/v2/systemsharedmemory/status"),
    ("POST", "/v2/systemsharedmemory/region/x/register"),
    ("GET", "/v2/cudasharedmemory/status"),
    ("GET", "/v2/logging"),
    ("POST", "/v2/logging"),
    ("GET", "/v2/trace/setting"),
    ("POST", "/v2/models/echo/trace/setting"),
)
OPEN_PATHS = ("/v2/health/ready", "/v2/models/echo/ready", "/v2/models/echo", "/v2")


@dataclass
class Certificates:
    server: Path
    key: Path
    ca: Path
    client: Path
    client_key: Path


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    ca = trustme.CA()
    server, client = ca.issue_cert("127.0.0.1"), ca.issue_cert("proxy@example.org")
    files = Certificates(*(folder / name for name in ("server", "key", "ca", "client", "own")))
    server.cert_chain_pems[0].write_to_path(files.server)
    server.private_key_pem.write_to_path(files.key)
    client.cert_chain_pems[0].write_to_path(files.client)
    client.private_key_pem.write_to_path(files.client_key)
    ca.cert_pem.write_to_path(files.ca)
    return files


@pytest.fixture
def config(tmp_path: Path) -> LaunchConfig:
    return LaunchConfig(
        repository=add_model(tmp_path / "repo"),
        log_path=tmp_path / "triton.log",
        python_backends={},
        model_control=True,
        grace_s=3,
    )


def ask(address: str, method: str, path: str, key: str | None = None) -> int:
    connection = HTTPConnection(address, timeout=20)
    try:
        headers = {ADMIN_HEADER: key} if key else {}
        connection.request(method, path, "{}" if method == "POST" else None, headers)
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.fixture
def restricted(config: LaunchConfig) -> Iterator[Triton]:
    with Triton(replace(config, admin_key=new_key())) as running:
        yield running


@pytest.mark.triton
def test_what_changes_the_server_wants_the_key_and_the_rest_does_not(restricted: Triton) -> None:
    address, key = restricted.http_address, restricted.config.admin_key
    for method, path in ADMIN_PATHS:
        assert ask(address, method, path) == 403, path
        assert ask(address, method, path, "guessed") == 403, path
    for path in OPEN_PATHS:
        assert ask(address, "GET", path) == 200, path
    for path in ("/v2/systemsharedmemory/status", "/v2/logging", "/v2/trace/setting"):
        assert ask(address, "GET", path, key) == 200
    client = grpc_client.InferenceServerClient(restricted.grpc_address)
    calls = (
        client.get_model_repository_index,
        client.get_system_shared_memory_status,
        client.get_log_settings,
        client.get_trace_settings,
    )
    for call in calls:
        with pytest.raises(InferenceServerException, match="restricted"):
            call()
        assert call(headers={GRPC_ADMIN_HEADER: key}) is not None
    assert client.infer("echo", tensors(X)).as_numpy("Y").tolist() == [0, 1, 2]
    client.close()


@pytest.mark.triton
def test_the_key_is_the_owners_alone_and_lets_models_be_controlled(restricted: Triton) -> None:
    path = access.path_of(restricted.config.log_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    control = Control(access.read(restricted.config.log_path))
    assert [(each.name, each.version, each.ready) for each in control.index()] == [
        ("echo", 1, True)
    ]
    control.unload("echo")
    [gone] = control.index()
    assert not gone.ready
    control.load("echo")
    with pytest.raises(LaunchError, match="Triton refuses; found failed to load 'nobody'"):
        control.load("nobody")
    stranger = Control(replace(control.access, admin_key=None))
    with pytest.raises(LaunchError, match="This API is restricted"):
        stranger.index()
    restricted.stop()
    assert not path.exists()
    with pytest.raises(LaunchError, match="no Triton to talk to"):
        access.read(restricted.config.log_path)
    with pytest.raises(LaunchError, match="doesn't answer"):
        control.index()


@pytest.mark.triton
@pytest.mark.parametrize("mutual", [False, True], ids=["TLS", "mutual TLS"])
async def test_the_proxy_reaches_a_triton_with_tls_and_nobody_does_without(
    mutual: bool, config: LaunchConfig, certificates: Certificates
) -> None:
    tls = ServerTls(
        certificate=certificates.server,
        key=certificates.key,
        client_ca=certificates.ca if mutual else None,
    )
    own = {"certificate": certificates.client, "key": certificates.client_key}
    with Triton(replace(config, tls=tls)) as triton:

        async def reaches(client: TritonTls | None) -> bool:
            backend = TritonBackend(
                ServerConfig(
                    triton_addresses=(triton.grpc_address,),
                    models=(
                        ServedModel(
                            name="echo", tokenizer_dir=Path(), max_seq_len=1, triton_model="echo"
                        ),
                    ),
                    triton_tls=client,
                )
            )
            try:
                return await backend.ready("echo")
            finally:
                await backend.close()

        assert await reaches(TritonTls(ca=certificates.ca, **(own if mutual else {})))
        assert not await reaches(None)
        assert not await reaches(TritonTls())
        assert await reaches(TritonTls(ca=certificates.ca)) != mutual


@pytest.mark.triton
def test_http_which_has_no_tls_stays_on_this_machine(
    config: LaunchConfig, certificates: Certificates
) -> None:
    tls = ServerTls(certificate=certificates.server, key=certificates.key)
    with Triton(replace(config, host="0.0.0.0", tls=tls)) as triton:
        command = Path(f"/proc/{triton.pid}/cmdline").read_text().split("\0")
        assert "--http-address=127.0.0.1" in command
        assert "--grpc-address=0.0.0.0" in command
        credentials = grpc.ssl_channel_credentials(certificates.ca.read_bytes())
        with grpc.secure_channel(triton.grpc_address, credentials) as channel:
            grpc.channel_ready_future(channel).result(timeout=20)


def test_whether_the_models_own_certificate_is_let_in_is_known_before(tmp_path: Path) -> None:
    ours, others = trustme.CA(), trustme.CA()
    issued = ours.issue_cert("localhost")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    for authority, expected in ((ours, True), (others, False)):
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        tls = ServerTls(
            certificate=tmp_path / "cert.pem",
            key=tmp_path / "key.pem",
            client_ca=tmp_path / "ca.pem",
        )
        assert tls.models_are_let_in() is expected


def test_a_certificate_that_is_not_there_is_named(tmp_path: Path) -> None:
    tls = ServerTls(certificate=tmp_path / "none.pem", key=tmp_path / "key.pem")
    with pytest.raises(ArtifactError, match=r"none.pem is needed for TLS"):
        tls.require_files()


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.0.0.2", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.5", False),
        ("triton", False),
    ],
)
def test_loopback_is_told_from_the_rest(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_keys_are_long_and_no_two_are_alike() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert min(map(len, keys)) >= 43


def test_without_key_and_certificate_nothing_is_added() -> None:
    assert security.arguments(None, None) == []


def test_an_access_that_is_another_servers_by_now_stays(tmp_path: Path) -> None:
    mine = access.Access(pid=1, http_address="a:1", grpc_address="a:2")
    access.write(mine, tmp_path / "log")
    theirs = replace(mine, pid=2)
    access.write(theirs, tmp_path / "log")
    access.remove(mine, tmp_path / "log")
    assert access.read(tmp_path / "log") == theirs
    assert json.loads(access.path_of(tmp_path / "log").read_text())["pid"] == 2
