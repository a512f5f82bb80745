"""gRPC's own client, alone: what a token costs in time without a proxy.

    python -m proxying.bare --port P [--requests 10] [--max-tokens 64]

One request after the other; prints `first_s` and `received` as `proxying.load` does.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

import grpc
import uvloop
from token_client import request
from tritonclient.grpc import service_pb2_grpc
from tritonclient.grpc.service_pb2 import ModelInferRequest


async def ask(port: int, requests: int, max_tokens: int) -> dict[str, list[object]]:
    """All of them."""
    stub = service_pb2_grpc.GRPCInferenceServiceStub(grpc.aio.insecure_channel(f"127.0.0.1:{port}"))
    wire = ModelInferRequest.FromString(request(list(range(1, 40)), max_tokens))
    first_s, received = list[object](), list[object]()
    for _ in range(requests):
        asked, times = time.monotonic(), list[float]()

        async def messages() -> object:
            yield wire

        async for _response in stub.ModelStreamInfer(messages()):
            times.append(time.monotonic())
        first_s.append(times[0] - asked)
        received.append(times)
    return {"first_s": first_s, "received": received}


def main() -> None:
    """Ask, and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--requests", type=int, default=10)
    parser.add_argument("--max-tokens", type=int, default=64)
    arguments = parser.parse_args()
    found = uvloop.run(ask(arguments.port, arguments.requests, arguments.max_tokens))
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
