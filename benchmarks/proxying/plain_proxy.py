"""The proxy that one writes in a day: FastAPI, pydantic models, grpc.aio. For comparison only.

    python -m proxying.plain_proxy --tokenizer DIR --triton HOST:PORT

It does the least that streams a chat answer in OpenAI's way: template, tokenizer, `tokenizers`'
DecodeStream, one chunk for each message of Triton. No stop strings, tools, limits or metrics.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import struct
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream
from tritonclient.grpc import service_pb2, service_pb2_grpc


class Message(BaseModel):
    """Of a conversation."""

    role: str
    content: str


class ChatRequest(BaseModel):
    """What is asked."""

    model: str
    messages: list[Message]
    max_tokens: int = 16
    temperature: float = 1.0
    stream: bool = False


class Delta(BaseModel):
    """What is new."""

    role: str | None = None
    content: str | None = None


class Choice(BaseModel):
    """The one choice."""

    index: int = 0
    delta: Delta
    finish_reason: str | None = None


class Chunk(BaseModel):
    """One event."""

    id: str
    object: str = "chat.completion.chunk"
    created: int
    model: str
    choices: list[Choice]


class Plain:
    """The whole of it."""

    def __init__(self, folder: Path, triton: str) -> None:
        config = json.loads((folder / "tokenizer_config.json").read_text())
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        self.template = environment.from_string(config["chat_template"])
        self.triton = triton
        self.stub: Any = None

    async def chat(self, request: ChatRequest) -> StreamingResponse:
        """POST /v1/chat/completions."""
        if self.stub is None:
            self.stub = service_pb2_grpc.GRPCInferenceServiceStub(
                grpc.aio.insecure_channel(self.triton)
            )
        messages = [message.model_dump() for message in request.messages]
        prompt = self.template.render(messages=messages, add_generation_prompt=True)
        ids = self.tokenizer.encode(prompt, add_special_tokens=False).ids
        return StreamingResponse(self.events(request, ids), media_type="text/event-stream")

    async def events(self, request: ChatRequest, ids: list[int]) -> AsyncIterator[str]:
        """The answer's."""
        name, created = f"chatcmpl-{uuid.uuid4().hex}", int(time.time())

        def event(delta: Delta, reason: str | None = None) -> str:
            choice = Choice(delta=delta, finish_reason=reason)
            chunk = Chunk(id=name, created=created, model=request.model, choices=[choice])
            return f"data: {chunk.model_dump_json(exclude_none=True)}\n\n"

        decoder = DecodeStream(skip_special_tokens=True)
        yield event(Delta(role="assistant", content=""))
        async for token in self.tokens(infer_request(request, ids, name)):
            text = decoder.step(self.tokenizer, token)
            if text:
                yield event(Delta(content=text))
        yield event(Delta(), "length")
        yield "data: [DONE]\n\n"

    async def tokens(self, request: Any) -> AsyncIterator[int]:
        """Triton's."""

        async def requests() -> AsyncIterator[Any]:
            yield request

        async for response in self.stub.ModelStreamInfer(requests()):
            if response.error_message:
                raise RuntimeError(response.error_message)
            answer = response.infer_response
            for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True):
                if output.name == "output_ids":
                    for token in struct.unpack(f"<{len(raw) // 4}i", raw):
                        yield token


def infer_request(request: ChatRequest, ids: list[int], name: str) -> Any:
    """A ModelInferRequest."""
    infer = service_pb2.ModelInferRequest(model_name="tensorrt_llm", id=name)
    infer.parameters["triton_enable_empty_final_response"].bool_param = True
    for tensor, datatype, layout, values in (
        ("input_ids", "INT32", "i", ids),
        ("input_lengths", "INT32", "i", [len(ids)]),
        ("request_output_len", "INT32", "i", [request.max_tokens]),
        ("temperature", "FP32", "f", [request.temperature]),
        ("streaming", "BOOL", "?", [True]),
    ):
        infer.inputs.add(name=tensor, datatype=datatype, shape=[1, len(values)])
        infer.raw_input_contents.append(struct.pack(f"<{len(values)}{layout}", *values))
    for output in ("output_ids", "sequence_length"):
        infer.outputs.add(name=output)
    return infer


async def serve(plain: Plain) -> None:
    """Until killed."""
    app = FastAPI()
    app.post("/v1/chat/completions", response_model=None)(plain.chat)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", access_log=False))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.05)
    print(server.servers[0].sockets[0].getsockname()[1], flush=True)
    await serving


def main() -> None:
    """Serve on uvloop, as uvicorn does where it is there."""
    import uvloop

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--triton", required=True)
    arguments = parser.parse_args()
    uvloop.run(serve(Plain(arguments.tokenizer, arguments.triton)))


if __name__ == "__main__":
    main()
