"""The `tensorrtllm` backend of a machine without a GPU: our executor behind the C++ tensors.

The launcher puts it in Triton's backend folder under that name, so that a repository written for
NVIDIA's C++ backend loads unchanged. Inputs mean what they mean there; one that this engine can't
honour is refused by name.

Threads: Triton's reads requests and hands them on; the executor's computes; one sends all answers;
one compiles grammars, so that a slow one holds up nobody else's request; one reports metrics.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from builder.errors import RequestError, TrtbuildError
from triton_repo.executor.output import FinishReason, Output
from triton_repo.runtime.inputs import read_request
from triton_repo.runtime.inputs_row import Row, Tensors, rows
from triton_repo.runtime.metrics import Metrics
from triton_repo.runtime.outputs import Answer, Stream, acknowledge, refuse
from triton_repo.runtime.tensorrtllm_engine import load
from triton_repo.runtime.tensorrtllm_parameters import UNUSED, Parameters
from triton_repo.runtime.tensorrtllm_sender import Sender


class TritonPythonModel:
    """One engine: an executor, and the threads between it and Triton."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the engine named by the model's `gpt_model_path` parameter."""
        config = json.loads(args["model_config"])
        try:
            self.parameters = Parameters.of(config)
            self.engine = load(self.parameters)
        except TrtbuildError as error:
            raise pb_utils.TritonModelException(str(error)) from error
        for name in self.parameters.unused:
            pb_utils.Logger.log_info(f"parameter {name} means nothing on a CPU: {UNUSED[name]}")
        threading.excepthook = _die
        self.logits_dtype = _logits_dtype(config)
        self.answered: list[Answer] = []
        self.sender = Sender(
            self.engine.executor,
            period_s=self.parameters.cancellation_check_period_ms / 1000,
            over=self.answered.append,
        )
        # a step has the cores to itself: one that shares them with answers on their way is slower
        self.engine.executor.between = self.sender.drain
        self.compiler = ThreadPoolExecutor(1, "grammars")
        self.compiling: set[Answer] = set()
        self.metrics = Metrics(args["model_name"], args["model_version"])
        self.closing = threading.Event()
        self.reporter = threading.Thread(target=self._report_loop, name="metrics", daemon=True)
        self.reporter.start()

    def execute(self, requests: list[Any]) -> None:
        """Hand the requests to the executor; answers leave through their response senders."""
        for request in requests:
            try:
                self._begin(request)
            except Exception as error:  # noqa: BLE001 - one request's fault isn't its batch's
                refuse(request, _message(error))

    def finalize(self) -> None:
        """End what is running, send what is ready, stop all threads."""
        self.compiler.shutdown(cancel_futures=True)
        self.engine.executor.close()
        self.sender.close()
        self.closing.set()
        self.reporter.join()

    def _begin(self, request: Any) -> None:
        tensors = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        if _stops(tensors):
            if not request.request_id():
                raise RequestError("stop needs the request id of what it stops", param="stop")
            self.sender.cancel(lambda answer: answer.stream.request_id == request.request_id())
            acknowledge(request, decoupled=self.parameters.decoupled)
            return
        asked = [read_request(row, self.engine.accepts) for row in self._prompts(tensors)]
        stream = Stream(request, asked, self.logits_dtype, decoupled=self.parameters.decoupled)
        self.sender.open(stream.answers)
        for answer in stream.answers:
            guide = answer.asked.guide
            if guide and self.engine.guides and not self.engine.guides.knows(*guide):
                self._compile_first(answer)
            else:
                self._submit(answer)

    def _prompts(self, tensors: Tensors) -> list[Row]:
        prompts = rows(tensors)
        if len(prompts) > 1 and not self.parameters.decoupled:
            raise RequestError(
                "input_ids must be one prompt: more need a decoupled model",
                found=f"a batch of {len(prompts)}",
                param="input_ids",
            )
        return prompts

    def _compile_first(self, answer: Answer) -> None:
        """Queue a prompt whose grammar must be compiled; it counts as one that waits."""
        most = self.parameters.max_queue_size
        waiting = len(self.compiling) + self.engine.executor.stats().waiting_requests
        if most and waiting >= most:
            self._fail(answer, RequestError(f"Maximum queue size of {most} has been reached"))
            return
        self.compiling.add(answer)
        self.compiler.submit(self._compiled, answer)

    def _compiled(self, answer: Answer) -> None:
        try:
            self._submit(answer)
        finally:
            self.compiling.discard(answer)

    def _submit(self, answer: Answer) -> None:
        """Give a prompt to the executor, with its guide and its adapter."""
        asked, request = answer.asked, answer.asked.request
        try:
            if answer.cancelled:
                raise RequestError("the request was cancelled before it began")
            if asked.guide and self.engine.guides:
                request = replace(request, guide=self.engine.guides.compile(*asked.guide))
            if asked.adapter:
                request = replace(request, adapter=self.engine.adapters.resolve(*asked.adapter))
            handle = answer.handle = self.engine.executor.submit(
                request, partial(self.sender.receive, answer)
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, the client must hear of it
            self._fail(answer, error)
            return
        if answer.cancelled:
            self.engine.executor.cancel(handle)
        if answer.closed:
            answer.handle = None

    def _fail(self, answer: Answer, error: Exception) -> None:
        """End a prompt that doesn't get into the executor."""
        answer.code = _code(error)
        output = Output([], [], FinishReason.ERROR, error=_message(error), final=True)
        self.sender.receive(answer, output)

    def _report_loop(self) -> None:
        period_s = self.parameters.stats_check_period_ms / 1000
        over = False
        while not over:
            over = self.closing.wait(period_s)
            self.metrics.update(self.engine.executor.stats())
            while self.answered:
                answer = self.answered.pop()
                self.metrics.observe(
                    output_tokens=answer.generated,
                    input_tokens=len(answer.asked.request.input_ids),
                )


def _stops(tensors: Tensors) -> bool:
    return "stop" in tensors and bool(np.any(tensors["stop"]))


def _message(error: Exception) -> str:
    """What to tell the client: it begins with the tensor at fault."""
    name = error.param if isinstance(error, RequestError) else None
    return f"{name}: {error}" if name and not str(error).startswith(name) else str(error)


def _code(error: Exception) -> Any:
    """Whose fault it is: a RequestError that names no input is the moment's, as a full queue."""
    if not isinstance(error, RequestError):
        return pb_utils.TritonError.INTERNAL
    return pb_utils.TritonError.INVALID_ARG if error.param else pb_utils.TritonError.UNAVAILABLE


def _logits_dtype(config: Mapping[str, Any]) -> type:
    types = {output["name"]: output["data_type"] for output in config["output"]}
    return np.float16 if types.get("context_logits") == "TYPE_FP16" else np.float32


def _die(failure: threading.ExceptHookArgs) -> None:
    """A thread that fails leaves clients waiting for ever; a process that ends is started again."""
    threading.__excepthook__(failure)
    os._exit(1)
