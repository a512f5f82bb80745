"""Starts a Triton on a repository, keeps it up, and stops it."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from builder.errors import LaunchError, TrtbuildError
from triton_repo.control import access
from triton_repo.control.access import Access
from triton_repo.control.client import Control
from triton_repo.launch import binary
from triton_repo.launch.binary import TritonServer
from triton_repo.launch.command import LaunchConfig, Ports
from triton_repo.launch.ports import free_ports
from triton_repo.launch.probe import Prober
from triton_repo.launch.process import ServerProcess, address_of

__all__ = ["LaunchConfig", "Triton"]

_ATTEMPTS = 3
_INDEX_S = 10.0
_CRASH = "boost::interprocess::lock_exception"
_log = logging.getLogger("trtbuild.launch")


class Triton:
    """A supervised tritonserver; a context manager.

    A server that dies, or one of whose models' processes dies (Triton itself goes on calling the
    model ready), or that gives a probe no token, is killed and started again on the same ports,
    later and later while it keeps failing. While it runs, `control.access` says how to reach it.
    `on_event` gets a line for each such event, on the supervisor's thread.
    """

    def __init__(
        self, config: LaunchConfig, *, on_event: Callable[[str], None] = _log.warning
    ) -> None:
        self.config = config
        self._on_event = on_event
        self._process: ServerProcess | None = None
        self._ports: Ports | None = None
        self._supervisor: threading.Thread | None = None
        self._prober: Prober | None = None
        self._complaint: str | None = None
        self._stopping = threading.Event()
        self._ended = threading.Event()
        self._healthy = False
        self._failure: LaunchError | None = None
        self.restarts = 0

    def start(self) -> None:
        """Start Triton and return when its models are ready.

        Raises LaunchError with the end of its log where it doesn't get there, MissingToolError
        where there is no usable tritonserver, OutputError where the log can't be written.
        """
        if self._ports:
            raise RuntimeError("a Triton starts once")
        if not self.config.repository.is_dir():
            raise LaunchError(
                f"{self.config.repository} is not a repository",
                found="no such folder",
                do="make one with trtbuild repo",
            )
        server = binary.find()
        self._start_first(server)
        if self._stopping.is_set():
            self.stop()
            raise LaunchError("Triton was stopped while it started")
        try:
            access.write(self._access, self.config.log_path)
        except BaseException:
            self.stop()
            raise
        self._wake_read, self._wake_write = os.pipe()
        self._healthy = True
        self._probe()
        self._supervisor = threading.Thread(
            target=self._supervise, args=(server,), name="triton-supervisor", daemon=True
        )
        self._supervisor.start()

    def stop(self) -> None:
        """Stop Triton: requests under way may finish within `grace_s`. Does nothing twice."""
        self._stopping.set()
        if self._supervisor:
            os.write(self._wake_write, b"x")
            self._supervisor.join()
            self._end_probe()
            os.close(self._wake_read)
            os.close(self._wake_write)
            self._supervisor = None
        self._healthy = False
        if self._process:
            self._process.stop()
            self._process = None
        if self._ports:
            access.remove(self._access, self.config.log_path)
        self._ended.set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until Triton has been stopped (then True) or `timeout_s` is over (False).

        Raises LaunchError when it was given up.
        """
        ended = self._ended.wait(timeout_s)
        if self._failure:
            raise self._failure
        return ended

    @property
    def healthy(self) -> bool:
        """Whether Triton is up with all its models, as far as is known."""
        return self._healthy

    @property
    def pid(self) -> int | None:
        """tritonserver's process id, or None while there is none."""
        return self._process.pid if self._process else None

    @property
    def http_address(self) -> str:
        """host:port of the HTTP endpoint."""
        return address_of(self.config.http_host, self._known_ports.http)

    @property
    def grpc_address(self) -> str:
        """host:port of the gRPC endpoint."""
        return address_of(self.config.host, self._known_ports.grpc)

    @property
    def metrics_address(self) -> str:
        """host:port of the Prometheus endpoint."""
        return address_of(self.config.host, self._known_ports.metrics)

    def __enter__(self) -> Triton:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def _known_ports(self) -> Ports:
        if self._ports is None:
            raise RuntimeError("Triton has no address before it is started")
        return self._ports

    @property
    def _access(self) -> Access:
        return Access(
            pid=os.getpid(),
            http_address=self.http_address,
            grpc_address=self.grpc_address,
            admin_key=self.config.admin_key,
            model_control=self.config.model_control,
        )

    def _start_first(self, server: TritonServer) -> None:
        """Start, with other ports where somebody was quicker to take the free ones.

        And again where it broke down over its Python stubs' locks, as it may on a busy machine.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            self._ports = _choose_ports(self.config)
            try:
                self._run(server)
                return
            except LaunchError as error:
                free = None in (
                    self.config.http_port,
                    self.config.grpc_port,
                    self.config.metrics_port,
                )
                chance = _CRASH in str(error) or (free and "already in use" in str(error))
                if not chance or attempt == _ATTEMPTS:
                    raise
                self._on_event(f"{error.what}; found {error.found}; starting it again")

    def _run(self, server: TritonServer) -> None:
        """Start one server and wait until it is ready; one that isn't is gone afterwards."""
        process = ServerProcess(self.config, server, self._known_ports)
        try:
            process.wait_ready(self._stopping)
        except BaseException:
            process.kill()
            raise
        self._process = process

    def _supervise(self, server: TritonServer) -> None:
        failures = 0
        while not self._stopping.is_set() and self._process:
            since = time.monotonic()
            reason = self._process.watch(self._wake_read) or self._complaint
            if reason is None or self._stopping.is_set():
                return
            self._healthy = False
            self._end_probe()
            failures = 1 if time.monotonic() - since > self.config.stable_s else failures + 1
            tail = self._process.log_tail
            self._process.kill()
            self._process = None
            self._on_event(f"{reason}; the end of {self.config.log_path}:\n{tail}")
            failures = self._restart(server, failures, reason)

    def _restart(self, server: TritonServer, failures: int, reason: str) -> int:
        """Start again until it works or is given up; the failures in a row so far."""
        config = self.config
        while failures < config.max_failures:
            delay_s = min(config.backoff_s * 2 ** (failures - 1), config.max_backoff_s)
            self._on_event(f"starting Triton again in {delay_s:g} s")
            if self._stopping.wait(delay_s):
                return failures
            try:
                self._run(server)
            except (TrtbuildError, OSError) as error:
                reason = str(error)
                failures += 1
                self._on_event(reason)
                continue
            if self._stopping.is_set():
                return failures
            self._healthy = True
            self._probe()
            self._on_event("Triton is up again")
            self.restarts += 1
            return failures
        self._give_up(failures, reason)
        return failures

    def _probe(self) -> None:
        """Probe the server that has just come up, where that is wanted."""
        if self.config.probe and self.config.probe.requests:
            self._prober = Prober(
                self.config.probe, self.http_address, self._complain, self._unloaded
            )

    def _unloaded(self) -> set[str]:
        """The models that Triton has in no version; none where it doesn't say."""
        try:
            index = Control(self._access, timeout_s=_INDEX_S).index()
        except LaunchError:
            return set()
        return {each.name for each in index} - {each.name for each in index if each.ready}

    def _end_probe(self) -> None:
        """No more probes; a complaint that has come is forgotten."""
        if self._prober:
            self._prober.stop()
            self._prober = None
        if self._complaint:
            os.read(self._wake_read, 1)
            self._complaint = None

    def _complain(self, reason: str) -> None:
        self._complaint = reason
        os.write(self._wake_write, b"p")

    def _give_up(self, failures: int, reason: str) -> None:
        self._failure = LaunchError(
            f"Triton failed {failures} times in a row",
            found=reason,
            do=f"read {self.config.log_path}",
        )
        self._on_event(str(self._failure))
        self._ended.set()


def _choose_ports(config: LaunchConfig) -> Ports:
    wanted = (config.http_port, config.grpc_port, config.metrics_port)
    free = free_ports(config.host, len(wanted))
    http, grpc, metrics = (port or spare for port, spare in zip(wanted, free, strict=True))
    return Ports(http=http, grpc=grpc, metrics=metrics)


def default_log(repository: Path) -> Path:
    """Where the log goes when nobody says: beside the repository."""
    return repository.resolve().with_name(f"{repository.resolve().name}.triton.log")
