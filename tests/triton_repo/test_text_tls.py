"""Promise: models that call the engine do so too where Triton's endpoint has TLS."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme
from plain_clients import generate
from tiny_engine import ECHO_BACKEND, make_engine

from triton_repo.launch.security import ServerTls
from triton_repo.launch.triton import LaunchConfig, Triton
from triton_repo.layout import write_repository

pytestmark = [
    pytest.mark.triton,
    pytest.mark.filterwarnings("default::DeprecationWarning"),
]


@pytest.mark.parametrize(("name", "mutual"), [("127.0.0.1", True), ("triton.example.org", False)])
def test_text_is_answered_with_tls(name: str, mutual: bool, tmp_path: Path) -> None:
    ca = trustme.CA()
    server = ca.issue_cert(name)
    certificate, key, authority = (tmp_path / name for name in ("server", "key", "ca"))
    server.cert_chain_pems[0].write_to_path(certificate)
    server.private_key_pem.write_to_path(key)
    ca.cert_pem.write_to_path(authority)
    write_repository(make_engine(tmp_path / "engine"), tmp_path / "repo")
    config = LaunchConfig(
        repository=tmp_path / "repo",
        log_path=tmp_path / "triton.log",
        python_backends={"tensorrtllm": ECHO_BACKEND},
        tls=ServerTls(certificate=certificate, key=key, client_ca=authority if mutual else None),
        grace_s=3,
    )
    body = {"text_input": "Grüße", "max_tokens": 20}
    with Triton(config) as triton:
        (answer,) = generate(triton, "ensemble", body)
    assert answer["text_output"] == "Grüße"
