"""A run of tritonserver, one rank or all: started, awaited, watched, stopped, never left behind."""

from __future__ import annotations

import contextlib
import http.client
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from builder.artifact import writing
from builder.errors import LaunchError
from triton_repo.launch import binary, processes, ranks, security, server_log
from triton_repo.launch.binary import TritonServer
from triton_repo.launch.command import LaunchConfig, Ports, arguments, environment
from triton_repo.runtime import GRPC_ADDRESS

_GUARD = Path(__file__).with_name("guard.py")
_GPU_DEVICES = ("/dev/nvidiactl", "/dev/dxg")
_POLL_S = 0.05
_RESCAN_S = 5.0
_REAP_S = 0.3
_KILL_S = 15.0
_MPIRUN_S = 5.0


class ServerProcess:
    """A running tritonserver with its guard. The constructor starts it; `wait_ready` comes next."""

    def __init__(self, config: LaunchConfig, server: TritonServer, ports: Ports) -> None:
        self._config = config
        self._ports = ports
        self._folder = Path(tempfile.mkdtemp(prefix="trtbuild-triton-"))
        self._shm_prefix = f"trtbuild_{uuid.uuid4().hex[:12]}_"
        self._ranks: dict[int, int] = {}
        self._workers: set[int] = set()
        try:
            with writing(config.log_path):
                config.log_path.parent.mkdir(parents=True, exist_ok=True)
                config.log_path.touch()
            self._log_start = config.log_path.stat().st_size
            self._guard = self._spawn(server)
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise

    @property
    def pid(self) -> int | None:
        """tritonserver's process id, rank 0's of several, or None when it has ended."""
        if self._config.under_mpirun:
            return ranks.running(self._guard.pid).get(0)
        found = processes.children(self._guard.pid)
        return found[0].pid if found and not found[0].dead else None

    @property
    def log_tail(self) -> str:
        """The last lines that this run wrote."""
        return server_log.tail(self._config.log_path, self._log_start)

    def wait_ready(self, stopped: threading.Event) -> None:
        """Return when every model is ready, or `stopped` is set.

        Raises LaunchError when the server ends first, or isn't ready in time.
        """
        deadline = time.monotonic() + self._config.start_timeout_s
        while not stopped.wait(_POLL_S):
            if self._guard.poll() is not None:
                raise self._failure("Triton stopped before it was ready", self._ending())
            if self._answers():
                self._ranks, self._workers = self._running_ranks(), self._running_workers()
                return
            if time.monotonic() > deadline:
                limit = f"{self._config.start_timeout_s:g} s"
                raise self._failure(f"Triton wasn't ready within {limit}", None)

    def watch(self, wake: int) -> str | None:
        """Block until something dies, and say what; None when descriptor `wake` is readable.

        Sleeps in the kernel; only new stubs (models loaded on request) are looked for at times.
        """
        while True:
            with self._lifelines() as lifelines:
                ready = _wait([wake, *lifelines], _RESCAN_S if len(lifelines) > 1 else 1.0)
            if wake in ready:
                return None
            if reason := self._death():
                return reason

    def _death(self) -> str | None:
        """What has died, if anything has."""
        if self._guard.poll() is not None:
            return f"Triton died ({self._ending()})"
        if lost := self._ranks.keys() - self._running_ranks().keys():
            return f"rank {' and '.join(map(str, sorted(lost)))} died"
        if gone := self._workers - self._running_workers():
            return f"a worker of the engine died (process {min(gone)})"
        if dead := self._dead_stub():
            return f"a model's process died (process {dead})"
        return None

    def stop(self) -> None:
        """Let requests under way finish for `grace_s`, then end what is left."""
        if self._config.under_mpirun:
            self._end_leader()
        else:
            self._order_end()
        with contextlib.suppress(subprocess.TimeoutExpired):
            # an open gRPC stream, even an idle one, holds tritonserver for ever
            self._guard.wait(self._config.grace_s + 1)
        self.kill()

    def kill(self) -> None:
        """End it now, with all its children, and wait until nothing is left."""
        if self._config.under_mpirun:
            self._end_mpirun()
        with contextlib.suppress(BrokenPipeError):
            self._orders.close()
        try:
            self._guard.wait(_KILL_S)
        except subprocess.TimeoutExpired:
            self._guard.kill()
            self._guard.wait()
        # what a guard that was killed itself has left
        for pid in processes.mentioning(self._shm_prefix):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self._folder, ignore_errors=True)
        for region in Path("/dev/shm").glob(f"{self._shm_prefix}*"):
            region.unlink(missing_ok=True)

    def _spawn(self, server: TritonServer) -> subprocess.Popen[bytes]:
        backends = None
        if binary.needs_own_backends(server, self._config.python_backends):
            backends = self._folder
            with writing(backends):
                binary.make_backends(server, self._config.python_backends, backends)
        command = arguments(
            self._config,
            server,
            self._ports,
            backends=backends,
            shm_prefix=self._shm_prefix,
            gpu=has_gpu(),
        )
        isolated = [sys.executable, "-I", "-S", str(_GUARD), self._shm_prefix, str(self._folder)]
        with self._config.log_path.open("ab") as log:
            guard = subprocess.Popen(
                [*isolated, *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                # relative paths in the models' parameters start here
                cwd=self._config.repository.resolve(),
                env={
                    **os.environ,
                    **server.environment,
                    **ranks.environment(self._folder),
                    **models_environment(self._config, self._ports),
                },
                # an interrupt from the terminal is for the launcher, which stops us in order
                start_new_session=True,
            )
        if guard.stdin is None:
            raise RuntimeError("a process without its pipe")
        self._orders = guard.stdin
        return guard

    def _end_leader(self) -> None:
        """Ask rank 0 for its orderly end, which ends the others.

        mpirun, asked itself, would end all at once, the ranks that compute before the one that
        still answers.
        """
        if leader := self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(leader, signal.SIGTERM)

    def _end_mpirun(self) -> None:
        """Have mpirun end all ranks: it knows what there is to tidy up after them."""
        self._order_end()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._guard.wait(_MPIRUN_S)

    def _order_end(self) -> None:
        """Ask for the orderly end of what the guard started."""
        with contextlib.suppress(BrokenPipeError, ValueError):
            self._orders.write(b"t")
            self._orders.flush()

    def _running_ranks(self) -> dict[int, int]:
        return ranks.running(self._guard.pid) if self._config.under_mpirun else {}

    def _running_workers(self) -> set[int]:
        return ranks.workers(self._guard.pid) if self._config.orchestrator else set()

    def _answers(self) -> bool:
        host = connect_host(self._config.http_host)
        connection = http.client.HTTPConnection(host, self._ports.http, timeout=5)
        try:
            connection.request("GET", "/v2/health/ready")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    @contextlib.contextmanager
    def _lifelines(self) -> Iterator[list[int]]:
        """Descriptors that become readable when the guard, a rank or a stub ends.

        None on old kernels.
        """
        server = self.pid
        alive = [stub.pid for stub in processes.stubs(server) if not stub.dead] if server else []
        descriptors = []
        for pid in [self._guard.pid, *self._ranks.values(), *self._workers, *alive]:
            with contextlib.suppress(OSError):
                descriptors.append(os.pidfd_open(pid))
        try:
            yield descriptors
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _dead_stub(self) -> int | None:
        """A stub that has ended and that Triton doesn't reap, as it does when it unloads one."""
        first = self._dead_stubs()
        if not first:
            return None
        time.sleep(_REAP_S)
        return min(first & self._dead_stubs(), default=None)

    def _dead_stubs(self) -> set[int]:
        server = self.pid
        return {s.pid for s in processes.stubs(server) if s.dead} if server else set()

    def _ending(self) -> str:
        code = self._guard.wait()
        return f"signal {code - 128}" if code > 128 else f"exit code {code}"

    def _failure(self, what: str, ending: str | None) -> LaunchError:
        reason = server_log.cause(self._config.log_path, self._log_start) or ending
        remedy = server_log.remedy(reason or "")
        return LaunchError(
            what,
            found=reason,
            do=f"{remedy}read {self._config.log_path}, which ends with:\n{self.log_tail}",
        )


def has_gpu() -> bool:
    """Whether tritonserver finds an NVIDIA driver here."""
    return any(Path(device).exists() for device in _GPU_DEVICES)


def connect_host(host: str) -> str:
    """The address to reach a server at that listens on `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def address_of(listening: str, port: int) -> str:
    """host:port to reach a server at that listens on `listening`."""
    host = connect_host(listening)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _wait(descriptors: list[int], timeout_s: float) -> list[int]:
    """Those of `descriptors` that are readable, after at most `timeout_s`."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return [descriptor for descriptor, _ in poll.poll(timeout_s * 1_000)]


def models_environment(config: LaunchConfig, ports: Ports) -> dict[str, str]:
    """What the models, and TensorRT-LLM's backend, are to find in their environment."""
    return {
        **environment(config),
        GRPC_ADDRESS: address_of(config.host, ports.grpc),
        **security.environment(config.tls),
    }
