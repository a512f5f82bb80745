"""A stand-in for the docker command, for machines without its daemon.

It takes the flags of `docker run` that are ours, and no others; refuses a mount of what isn't there
and an image that it hasn't; shows the program what is mounted and nothing else, by refusing words
that name other places. The program outlives the client, as a container does, until `docker rm`.
"""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

IMAGE = "nvcr.io/nvidia/tritonserver:26.07-trtllm-python-py3"
OWN_IMAGE = "registry.example/ours:1"
SWITCHES = {"--rm"}
WITH_VALUE = {
    "--name",
    "--gpus",
    "--shm-size",
    "--ulimit",
    "--user",
    "--workdir",
    "--env",
    "--security-opt",
}
MANY = {"--mount", "--ulimit", "--env", "--security-opt"}
CONTAINERS = Path(os.environ.get("STAND_IN_CONTAINERS", "/nowhere"))


def fail(text: str) -> int:
    print(f"docker: {text}", file=sys.stderr, flush=True)
    return 125


def main() -> int:
    command, *words = sys.argv[1:]
    if command == "info":
        if words == ["--format", "{{.SecurityOptions}}"]:
            print("[name=seccomp,profile=builtin name=cgroupns]")
            return 0
        assert words == ["--format", "{{json .}}"]
        print(json.dumps({"ServerVersion": "28.2.2", "Runtimes": {"nvidia": {}, "runc": {}}}))
        return 0
    if command == "rm":
        force, name = words
        assert force == "--force"
        return remove(name)
    assert command == "run", command
    return run(words)


def remove(name: str) -> int:
    file = CONTAINERS / name
    if not file.exists():
        return fail(f"Error response from daemon: No such container: {name}")
    with contextlib.suppress(ProcessLookupError):
        os.killpg(int(file.read_text()), signal.SIGKILL)
    file.unlink()
    return 0


def run(words: list[str]) -> int:
    flags: dict[str, list[str]] = {}
    while words and words[0].startswith("-"):
        flag, equals, value = words.pop(0).partition("=")
        if flag not in SWITCHES | WITH_VALUE | MANY:
            return fail(f"unknown flag: {flag}")
        if flag not in SWITCHES and not equals:
            value = words.pop(0)
        flags.setdefault(flag, []).append(value)
    if once := [flag for flag in flags if len(flags[flag]) > 1 and flag not in MANY]:
        return fail(f"{once} more than once")
    image, program, *arguments = words
    if image not in (IMAGE, OWN_IMAGE):
        return fail(f"Error response from daemon: pull access denied for {image}")
    if program == "python3":
        return subprocess.call([sys.executable, "-S", *arguments[:1], _image_probe(image)])
    assert program == "trtllm-build", program
    assert flags["--gpus"] == ["all"]
    assert flags["--user"] == [f"{os.getuid()}:{os.getgid()}"]
    mounts = [next(csv.reader([value])) for value in flags.get("--mount", [])]
    readable, writable = [], []
    for kind, source, destination, *others in mounts:
        assert kind == "type=bind"
        source, destination = source.removeprefix("src="), destination.removeprefix("dst=")
        if not Path(source).is_absolute():
            return fail(f"invalid mount path: '{source}' mount path must be absolute")
        if not Path(source).exists():
            return fail(f"bind source path does not exist: {source}")
        assert source == destination
        readable.append(Path(source))
        if others != ["readonly"]:
            writable.append(Path(source))
    for flag, word in itertools.pairwise(arguments):
        if word.startswith("/"):
            places = writable if flag.startswith("--output") else readable
            assert any(Path(word).is_relative_to(place) for place in places), (flag, word)
    return contained(flags["--name"][0], [program, *arguments])


def _image_probe(image: str) -> str:
    found = {"version": "1.2.1", "tensorrt": "10.14.1.48", "compiler": True, "llmapi": True}
    return f"print('a banner'); print({json.dumps(json.dumps(found))})"


def contained(name: str, command: list[str]) -> int:
    """Run it as the daemon would: its output goes on when nobody reads it."""
    CONTAINERS.mkdir(exist_ok=True)
    log = CONTAINERS / f"{name}.log"
    program = shutil.which(command[0])
    assert program
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, *command[1:]], stdout=output, stderr=output, start_new_session=True
        )
    (CONTAINERS / name).write_text(str(process.pid))
    # the program is process 1 of a container, which no signal ends that it has no handler for
    signal.signal(signal.SIGTERM, lambda *_: None)
    with log.open("rb") as said:
        while True:
            code = process.poll()
            sys.stdout.buffer.write(said.read())
            sys.stdout.flush()
            if code is not None:
                break
            time.sleep(0.02)
    (CONTAINERS / name).unlink(missing_ok=True)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
