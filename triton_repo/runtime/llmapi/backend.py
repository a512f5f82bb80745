"""The model that Triton drives: requests in, the LLM API's tokens and texts out.

Two threads work beside Triton's. One runs the event loop in which the LLM API hands out tokens.
The other sends: a send waits for Triton, and tokens that come meanwhile leave together.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import queue
import re
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

from triton_repo.runtime.llmapi.api import Api, UnusableError
from triton_repo.runtime.llmapi.asked import read_request
from triton_repo.runtime.llmapi.folder import EngineFolder
from triton_repo.runtime.llmapi.metrics import Gauges
from triton_repo.runtime.llmapi.refused import Refused
from triton_repo.runtime.llmapi.stream import FINAL, Stream, send_error
from triton_repo.runtime.llmapi.tensors import flag

_MPI_JOB = re.compile(
    r"OMPI_(COMM_WORLD|UNIVERSE|FIRST|APP_CTX)_|OMPI_MCA_orte_|ORTE_|PMIX_(?!MCA_)|PMI_"
)
"""What tells a process that it is a rank of a job. LLM() starts one of its own, with a process for
each rank, and would take itself for a rank of the outer one (upstream's model.py clears them)."""

_STATS_PERIOD_S = 1.0


class TritonPythonModel:
    """The LLM API's model in one folder."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the model that `model.yaml` names, on as many GPUs as it says."""
        for name in [name for name in os.environ if _MPI_JOB.match(name)]:
            del os.environ[name]
        self._engine = EngineFolder(Path(args["model_repository"]) / args["model_version"])
        try:
            self._api = Api(self._engine.about.get("tensorrt_llm") or {})
            self._llm = self._api.start(self._engine.settings)
        except UnusableError as error:
            raise pb_utils.TritonModelException(str(error)) from error
        except Exception as error:
            raise pb_utils.TritonModelException(
                f"TensorRT-LLM can't load the model in {self._engine.path}: {error}"
            ) from error
        self._period_s = self._engine.cancellation_check_period_ms / 1000
        self._streams: set[Stream] = set()
        self._due: queue.SimpleQueue[Stream | None] = queue.SimpleQueue()
        self._broken = False
        self._loop = asyncio.new_event_loop()
        threading.excepthook = _die
        self._looping = threading.Thread(target=self._loop.run_forever, name="loop", daemon=True)
        self._sending = threading.Thread(target=self._send_all, name="sender", daemon=True)
        self._looping.start()
        self._sending.start()
        self._measuring: Future[None] | None = None
        if self._engine.settings.get("enable_iter_perf_stats"):
            gauges = Gauges(args["model_name"], args["model_version"])
            self._measuring = asyncio.run_coroutine_threadsafe(self._measure(gauges), self._loop)

    def execute(self, requests: list[Any]) -> None:
        """Hand the requests over; answers leave through their response senders."""
        for request in requests:
            try:
                self._begin(request)
            except Exception as error:  # noqa: BLE001 - one request's fault isn't another's
                send_error(request.get_response_sender(), error)

    def finalize(self) -> None:
        """End what is running, send what is ready, and stop TensorRT-LLM."""
        if self._measuring:
            self._measuring.cancel()
        asyncio.run_coroutine_threadsafe(self._cancel_all(), self._loop).result()
        self._due.put(None)
        self._sending.join()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._looping.join()
        self._llm.shutdown()
        # processes of other ranks live as long as something refers to them
        gc.collect()

    def _begin(self, request: Any) -> None:
        parameters = json.loads(request.parameters() or "{}")
        if unknown := [name for name in parameters if not name.startswith("triton_")]:
            raise Refused(f"{unknown[0]} is not supported: it is no input of this model")
        tensors = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        if flag(tensors, "stop"):
            if not (request_id := request.request_id()):
                raise Refused("stop must have the request id of what it stops")
            self._loop.call_soon_threadsafe(self._stop, request_id)
            request.get_response_sender().send(flags=FINAL)
            return
        wanted = request.requested_output_names()
        asked = read_request(tensors, self._engine, wants_text="text_output" in wanted)
        arguments = self._api.arguments(asked, self._engine)
        stream = Stream(request, asked, wanted)
        self._loop.call_soon_threadsafe(self._start, stream, arguments)

    def _start(self, stream: Stream, arguments: Mapping[str, Any]) -> None:
        self._streams.add(stream)
        stream.task = self._loop.create_task(self._run(stream, arguments))
        stream.task.add_done_callback(lambda task: self._ended(stream, task))

    async def _run(self, stream: Stream, arguments: Mapping[str, Any]) -> None:
        result = self._llm.generate_async(**arguments)
        try:
            async for step in result:
                if stream.add(step):
                    self._due.put(stream)
                if stream.ended:
                    return
        finally:
            if not result.finished:
                result.abort()

    def _ended(self, stream: Stream, task: asyncio.Task[None]) -> None:
        self._streams.discard(stream)
        error = None if task.cancelled() else task.exception()
        # the LLM API has failed as a whole, and refuses everything from then on: start again
        self._broken |= isinstance(error, RuntimeError) and "shutting down" in str(error)
        if stream.end(error):
            self._due.put(stream)

    def _stop(self, request_id: str) -> None:
        for stream in self._streams:
            if stream.request_id == request_id and stream.task:
                stream.task.cancel()

    async def _cancel_all(self) -> None:
        tasks = [stream.task for stream in self._streams if stream.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # their callbacks come next
        await asyncio.sleep(0)

    async def _measure(self, gauges: Gauges) -> None:
        while True:
            async for stats in self._llm.get_stats_async(_STATS_PERIOD_S):
                gauges.update(stats)
            await asyncio.sleep(_STATS_PERIOD_S)

    def _send(self, stream: Stream) -> None:
        """Send what is due; a response that Triton won't take ends its own stream alone."""
        try:
            stream.send()
        except Exception as error:  # noqa: BLE001 - whatever it is, the others go on
            if stream.task:
                self._loop.call_soon_threadsafe(stream.task.cancel)
            stream.give_up(error)

    def _send_all(self) -> None:
        """Send what is due, and look at times for clients that have gone."""
        looked = time.monotonic()
        while True:
            with contextlib.suppress(queue.Empty):
                stream = self._due.get(timeout=self._period_s)
                if stream is None:
                    return
                self._send(stream)
                if self._broken:
                    os._exit(1)
            if time.monotonic() - looked >= self._period_s:
                for stream in list(self._streams):
                    if stream.task and stream.cancelled():
                        self._loop.call_soon_threadsafe(stream.task.cancel)
                looked = time.monotonic()


def _die(failure: threading.ExceptHookArgs) -> None:
    """A thread that fails leaves clients waiting for ever; a process that ends is started again."""
    threading.__excepthook__(failure)
    os._exit(1)
