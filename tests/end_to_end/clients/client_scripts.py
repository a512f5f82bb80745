"""Starts the script of a client, in the environment that has it, and reads what it saw."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
VENV = Path(sys.prefix) / "clients"
NODE_MODULES = FOLDER / "node_modules"
TIMEOUT_S = 400
QUIET = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LANGCHAIN_TRACING_V2": "false",
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
}
"""The clients are to call nobody else."""


@dataclass(frozen=True, kw_only=True)
class Client:
    """A client and its script; `own` is in the environment that the tests run in."""

    script: str
    own: bool = False

    def command(self) -> list[str]:
        """How the script is started. Fails, saying what to do, where its client is missing."""
        path = str(FOLDER / "scripts" / self.script)
        if self.own:
            return [sys.executable, path]
        if path.endswith(".mjs"):
            node = shutil.which("node")
            assert node, "install Node 20 or later, and run make clients"
            assert NODE_MODULES.is_dir(), f"no {NODE_MODULES}: run make clients"
            return [node, path]
        python = VENV / "bin" / "python"
        assert python.exists(), f"no {python}: run make clients"
        return [str(python), path]

    def run(self, **urls: str) -> dict[str, Any]:
        """Feature → what the client saw of it."""
        done = subprocess.run(
            [*self.command(), json.dumps(urls)],
            env={**os.environ, **QUIET},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        seen: dict[str, Any] = json.loads(done.stdout)
        return seen


CLIENTS = {
    "openai-python": Client(script="openai_python.py", own=True),
    "openai-python-2": Client(script="openai_python.py"),
    "openai-node": Client(script="openai_node.mjs"),
    "langchain": Client(script="langchain_client.py"),
    "litellm": Client(script="litellm_client.py"),
    "instructor": Client(script="instructor_client.py"),
    "agents": Client(script="agents_client.py"),
}
