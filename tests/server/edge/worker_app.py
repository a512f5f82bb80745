"""The applications of the tests' workers, by the names that orders have."""

from __future__ import annotations

import os

from server.app import create_app
from server.backend.base import GenerateRequest
from server.backend.memory import MemoryBackend, Script
from server.config import ServerConfig
from server.edge.application import Application
from server.errors import UnusableTokenizerError


def counting(config: ServerConfig) -> Application:
    """Says its prompt's tokens again, slowly; its version is its process."""
    app = create_app(config, MemoryBackend(_again))
    app.serving.models.created = os.getpid()
    return app


def broken(config: ServerConfig) -> Application:
    """Never starts."""
    raise UnusableTokenizerError("this tokenizer is broken", found=f"worker {config.worker}")


def _again(request: GenerateRequest) -> Script:
    return Script(messages=[[token] for token in request.input_ids[1:]], delay_seconds=0.1)
