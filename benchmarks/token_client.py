"""The least of a client of a repository's models: gRPC's own stubs, bytes in, tokens or text out.

It shares the machine with what it measures, so nothing here costs more than it must: requests are
encoded before they are sent, no numpy, no tritonclient. A request is one bidirectional stream, as
the proxy's are, so that closing it cancels just that.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import grpc
from tritonclient.grpc import service_pb2

MODEL = "tensorrt_llm"
TEXT_MODELS = ("ensemble", "tensorrt_llm_bls")
_LETTERS = {"INT32": "i", "INT64": "q", "UINT64": "Q", "FP32": "f", "BOOL": "?"}
_TYPES = {
    "runtime_top_p": "FP32",
    "temperature": "FP32",
    "len_penalty": "FP32",
    "repetition_penalty": "FP32",
    "presence_penalty": "FP32",
    "frequency_penalty": "FP32",
    "embedding_bias": "FP32",
    "seed": "UINT64",
    "lora_task_id": "UINT64",
    "streaming": "BOOL",
    "stop": "BOOL",
    "return_log_probs": "BOOL",
    "return_generation_logits": "BOOL",
    "exclude_input_in_output": "BOOL",
    "guided_decoding_guide": "BYTES",
    "guided_decoding_guide_type": "BYTES",
    "text_input": "BYTES",
    "stop_words": "BYTES",
    "stream": "BOOL",
}
"""Input → Triton's type; the others are INT32."""
_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
)

Value = bool | int | float | str | Sequence[str] | Sequence[float] | Sequence[Sequence[int]]


class Answer(NamedTuple):
    """A response: its outputs' raw bytes by name; `error` is empty where all is well."""

    outputs: Mapping[str, bytes]
    final: bool
    error: str

    @property
    def token_ids(self) -> Sequence[int]:
        """The new tokens (of one sequence)."""
        return array("i", self.outputs.get("output_ids", b""))

    @property
    def text(self) -> str:
        """The new text (of one sequence)."""
        return self.outputs.get("text_output", b"")[4:].decode()

    def floats(self, name: str) -> Sequence[float]:
        """An output of FP32."""
        return array("f", self.outputs.get(name, b""))

    def number(self, name: str) -> int:
        """An output of one INT32; 0 where it isn't there."""
        return next(iter(array("i", self.outputs.get(name, b""))), 0)


def request(
    input_ids: Sequence[int],
    max_tokens: int,
    *,
    request_id: str = "",
    outputs: Iterable[str] = ("output_ids", "sequence_length"),
    **inputs: Value,
) -> bytes:
    """A request on the wire. A list is a row, a list of lists a table of stop words or the like."""
    given: dict[str, Value] = {
        "input_ids": input_ids,
        "input_lengths": len(input_ids),
        "request_output_len": max_tokens,
        "streaming": True,
        "exclude_input_in_output": True,
        **inputs,
    }
    return _wire(MODEL, request_id, given, outputs)


def text_request(model: str, text: str, max_tokens: int, **inputs: Value) -> bytes:
    """A request to a model that takes text."""
    given: dict[str, Value] = {"text_input": text, "max_tokens": max_tokens, **inputs}
    return _wire(model, "", given, ("text_output", "finish_reason"))


def _wire(model: str, request_id: str, given: Mapping[str, Value], outputs: Iterable[str]) -> bytes:
    infer = service_pb2.ModelInferRequest(model_name=model, id=request_id)
    # without it, Triton drops a final response that has no outputs
    infer.parameters["triton_enable_empty_final_response"].bool_param = True
    for name, value in given.items():
        datatype = _TYPES.get(name, "INT32")
        shape, raw = _tensor(datatype, value)
        infer.inputs.add(name=name, datatype=datatype, shape=[1, *shape])
        infer.raw_input_contents.append(raw)
    for name in outputs:
        infer.outputs.add(name=name)
    return bytes(infer.SerializeToString())


def words(*table: Sequence[int]) -> list[list[int]]:
    """Stop or bad words as a table of two rows: their ids, and where each ends."""
    ids = [token for word in table for token in word]
    ends, end = [], 0
    for word in table:
        end += len(word)
        ends.append(end)
    return [ids, ends + [-1] * (len(ids) - len(ends))]


class TokenClient:
    """A connection to a Triton. Make it inside a running event loop."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        self._open = self._channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")

    async def ask(self, wire: bytes) -> AsyncGenerator[Answer, None]:
        """The responses to one request, the final one last; closing the iterator cancels it.

        Raises grpc.aio.AioRpcError where the stream itself fails, EOFError where it ends early.
        """
        call = self._open()
        whole = False
        try:
            await call.write(wire)
            await call.done_writing()
            while (message := await call.read()) is not grpc.aio.EOF:
                answer = _read(message)
                whole = answer.final or bool(answer.error)
                yield answer
                if whole:
                    # not a cancel: one that meets the stream's own end leaves Triton holding it
                    while await call.read() is not grpc.aio.EOF:
                        pass
                    return
            raise EOFError(f"the stream ended without a final response: {await call.code()}")
        finally:
            if not whole:
                call.cancel()

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()


def _read(message: bytes) -> Answer:
    response = service_pb2.ModelStreamInferResponse.FromString(message)
    infer = response.infer_response
    names = (output.name for output in infer.outputs)
    return Answer(
        dict(zip(names, infer.raw_output_contents, strict=True)),
        bool(infer.parameters and infer.parameters["triton_final_response"].bool_param),
        response.error_message,
    )


def _tensor(datatype: str, value: Value) -> tuple[list[int], bytes]:
    """The shape without the batch, and the little-endian bytes (as every machine here has)."""
    if isinstance(value, str):
        value = [value]
    if datatype == "BYTES":
        encoded = [text.encode() for text in value]
        return [len(encoded)], b"".join(struct.pack("<I", len(one)) + one for one in encoded)
    if isinstance(value, bool | int | float):
        return [1], struct.pack("<" + _LETTERS[datatype], value)
    rows: Any = value
    nested = bool(rows) and not isinstance(rows[0], int | float)
    shape = [len(rows), len(rows[0])] if nested else [len(rows)]
    flat = [item for row in rows for item in row] if nested else rows
    return shape, array(_LETTERS[datatype], flat).tobytes()
