"""The `tensorrtllm` backend of a machine without a GPU: our executor behind the C++ tensors.

The launcher puts it in Triton's backend folder under that name, so that a repository written for
NVIDIA's C++ backend loads unchanged. Inputs mean what they mean there; one that this engine can't
honour is refused by name.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

from builder.errors import RequestError, TrtbuildError
from triton_repo.executor.executor import Executor, ExecutorConfig
from triton_repo.executor.request import Output
from triton_repo.runtime.inputs import read_request
from triton_repo.runtime.outputs import Stream, acknowledge, refuse


class TritonPythonModel:
    """One engine: an executor, and a thread that carries its tokens to Triton."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the engine named by the model's `gpt_model_path` parameter."""
        config = json.loads(args["model_config"])["parameters"]
        parameters = {name: value["string_value"] for name, value in config.items()}
        self.exclude_input = parameters.get("exclude_input_in_output") == "true"
        self.check_period_s = int(parameters.get("cancellation_check_period_ms", "100")) / 1000
        engine = Path(parameters["gpt_model_path"])
        try:
            self.executor = Executor(engine, ExecutorConfig.of(engine, **_settings(parameters)))
        except TrtbuildError as error:
            raise pb_utils.TritonModelException(str(error)) from error
        self.streams: set[Stream] = set()
        self.ready: list[Stream] = []
        self.wake = threading.Condition()
        self.closing = False
        threading.excepthook = _die
        self.sender = threading.Thread(target=self._send_loop, name="sender", daemon=True)
        self.sender.start()

    def execute(self, requests: list[Any]) -> None:
        """Hand the requests to the executor; answers leave through their response senders."""
        for request in requests:
            try:
                self._begin(request)
            except Exception as error:  # noqa: BLE001 - one request's fault isn't its batch's
                refuse(request, str(error))

    def finalize(self) -> None:
        """End what is running, send what is ready, stop both threads."""
        self.executor.close()
        with self.wake:
            self.closing = True
            self.wake.notify()
        self.sender.join()

    def _begin(self, request: Any) -> None:
        tensors = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        asked = read_request(tensors, exclude_input=self.exclude_input)
        if asked.stop:
            if not request.request_id():
                raise RequestError("stop needs the request id of what it stops", param="stop")
            self._cancel(lambda stream: stream.request_id == request.request_id())
            acknowledge(request)
            return
        stream = Stream(request, asked)
        with self.wake:
            self.streams.add(stream)
            self.wake.notify()
        try:
            stream.sequence = self.executor.submit(asked.request, partial(self._receive, stream))
        except RequestError:
            self.streams.discard(stream)
            raise

    def _receive(self, stream: Stream, output: Output) -> None:
        """On the executor's thread: note the tokens, leave the sending to the sender."""
        with self.wake:
            if stream.add(output):
                self.ready.append(stream)
                self.wake.notify()

    def _send_loop(self) -> None:
        """Send what is ready; tokens that come meanwhile leave together the next time."""
        checked = 0.0
        while True:
            with self.wake:
                if not (self.ready or self.closing):
                    self.wake.wait(self.check_period_s if self.streams else None)
                if self.closing and not self.ready:
                    return
                ready, self.ready = self.ready, []
                parts = [(stream, stream.take()) for stream in ready]
                self.streams.difference_update(stream for stream, part in parts if part.final)
            for stream, part in parts:
                stream.send(part)
            if time.monotonic() - checked >= self.check_period_s:
                self._cancel(Stream.cancelled)
                checked = time.monotonic()

    def _cancel(self, gone: Any) -> None:
        with self.wake:
            streams = list(self.streams)
        for stream in streams:
            if stream.sequence is not None and gone(stream):
                self.executor.cancel(stream.sequence)


def _die(failure: threading.ExceptHookArgs) -> None:
    """A thread that fails leaves clients waiting for ever; a process that ends is started again."""
    threading.__excepthook__(failure)
    os._exit(1)


def _settings(parameters: Mapping[str, str]) -> dict[str, Any]:
    """The model's parameters that set the executor: those of the C++ backend, by its names."""
    settings: dict[str, Any] = {
        "enable_kv_cache_reuse": parameters.get("enable_kv_cache_reuse", "true") == "true",
        "guaranteed_no_evict": parameters.get("batch_scheduler_policy") != "max_utilization",
    }
    if "max_tokens_in_paged_kv_cache" in parameters:
        settings["kv_cache_tokens"] = int(parameters["max_tokens_in_paged_kv_cache"])
    return settings
