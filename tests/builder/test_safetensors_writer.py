"""Files are written in order whatever computes first, in bounded memory, and say what failed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import xxhash
from model_files import write_safetensors

from builder import ahead, digest, safetensors_file
from builder.digest import COPY_BYTES
from builder.dtypes import Array
from builder.errors import CorruptFileError
from builder.safetensors_writer import (
    Compute,
    PendingTensor,
    Segment,
    Span,
    header_size,
    write,
    write_all,
)
from builder.stored_file import StoredFile


def computed(array: Array) -> Compute:
    return Compute(size_bytes=array.nbytes, run=lambda: array)


def pending(
    name: str, dtype: str, shape: tuple[int, ...], segments: Callable[[], Iterable[Segment]]
) -> PendingTensor:
    return PendingTensor(name=name, dtype=dtype, shape=shape, segments=segments)


def ahead_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("ahead")]


def test_the_same_tensors_give_the_same_bytes_and_the_digest_is_theirs(tmp_path: Path) -> None:
    array = np.arange(3 * COPY_BYTES, dtype=np.float32)
    halves = [computed(array[:5]), computed(array[5:])]
    tensors = [pending("a", "float32", array.shape, lambda: halves)]
    digests = [write(tmp_path / name, tensors) for name in ("first", "second")]
    content = (tmp_path / "first").read_bytes()
    assert content == (tmp_path / "second").read_bytes()
    assert digests == [f"xxh3_128:{xxhash.xxh3_128(content).hexdigest()}"] * 2
    assert digest.of(tmp_path / "first") == digests[0]


@pytest.mark.parametrize(("count", "order"), [(8, ["codes", "scales"]), (7, ["scales", "codes"])])
def test_tensors_keep_their_order_where_that_leaves_all_aligned(
    tmp_path: Path, count: int, order: list[str]
) -> None:
    codes, scales = np.arange(count, dtype=np.int8), np.arange(3, dtype=np.float32)
    write(
        tmp_path / "file",
        [
            pending("codes", "int8", codes.shape, lambda: [computed(codes)]),
            pending("scales", "float32", scales.shape, lambda: [computed(scales)]),
        ],
    )
    found = safetensors_file.read(tmp_path / "file")
    assert list(found) == order
    assert found["scales"].begin % 4 == 0
    assert np.array_equal(found["codes"].rows(), codes)
    assert np.array_equal(found["scales"].rows(), scales)


def test_spans_are_the_bytes_between_their_ends_in_the_order_given(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, 40 << 20, np.uint8)
    write_safetensors(tmp_path / "source", {"a": array})
    tensor = safetensors_file.read(tmp_path / "source")["a"]
    cuts = [(33 << 20, 7 << 20), (0, 20 << 20), (17, 3)]
    spans = [Span(tensor=tensor, begin=tensor.begin + at, size_bytes=size) for at, size in cuts]
    total = sum(size for _, size in cuts)
    write(tmp_path / "out", [pending("b", "uint8", (total,), lambda: spans)])
    joined = np.concatenate([array[at : at + size] for at, size in cuts])
    assert safetensors_file.read(tmp_path / "out")["b"].data() == joined.tobytes()


def test_segments_keep_their_order_however_long_each_computes(tmp_path: Path) -> None:
    def slow(value: int) -> Array:
        time.sleep(0.001 * (7 - value % 8))
        return np.full(3, value, np.int16)

    count = 3 * ahead.AHEAD
    steps = [Compute(size_bytes=6, run=lambda v=v: slow(v)) for v in range(count)]
    write(tmp_path / "out", [pending("a", "int16", (count, 3), lambda: steps)])
    written = safetensors_file.read(tmp_path / "out")["a"].numpy()
    assert (written == np.arange(count)[:, None]).all()


def test_files_written_together_are_those_written_alone(tmp_path: Path) -> None:
    def tensors(rank: int) -> list[PendingTensor]:
        arrays = [np.full(5, 10 * rank + n, np.float16) for n in range(3 - rank)]
        wide = pending("wide", "float32", (2,), lambda: [computed(np.ones(2, np.float32))])
        rest = [
            pending(f"t{n}", "float16", (5,), lambda a=array: [computed(a)])  # type: ignore[misc]
            for n, array in enumerate(arrays)
        ]
        return [*rest, wide]

    together = write_all({tmp_path / f"both{rank}": tensors(rank) for rank in range(2)})
    for rank in range(2):
        alone = write(tmp_path / f"alone{rank}", tensors(rank))
        assert together[tmp_path / f"both{rank}"] == alone
        written = (tmp_path / f"both{rank}").read_bytes()
        assert written == (tmp_path / f"alone{rank}").read_bytes()
        size = header_size(tensors(rank)) + sum(t.nbytes for t in tensors(rank))
        assert size == len(written)


def test_progress_counts_every_byte_once(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    arrays = [np.zeros(1000, np.uint8)] * 3
    tensors = [pending("a", "uint8", (3000,), lambda: map(computed, arrays))]
    write_all({tmp_path / "x": tensors, tmp_path / "y": tensors}, lambda *now: seen.append(now))
    assert seen == [(1000 * (n + 1), 6000) for n in range(6)]


@pytest.mark.parametrize(
    ("segment", "error"),
    [
        (computed(np.zeros(3, np.float32)), ValueError),
        (computed(np.zeros(2, np.float64)), TypeError),
        (Compute(size_bytes=16, run=lambda: np.zeros(3, np.float32)), TypeError),
    ],
)
def test_a_source_that_gives_other_bytes_than_it_said_is_caught(
    tmp_path: Path, segment: Segment, error: type[Exception]
) -> None:
    with pytest.raises(error, match="a:"):
        write(tmp_path / "file", [pending("a", "float32", (4,), lambda: [segment])])


def test_an_error_on_another_thread_is_raised_and_leaves_no_thread(tmp_path: Path) -> None:
    begun: list[int] = []

    def step(number: int) -> Array:
        begun.append(number)
        if number == 3:
            raise CorruptFileError("no good")
        return np.zeros(1, np.uint8)

    steps = [Compute(size_bytes=1, run=lambda n=n: step(n)) for n in range(1000)]
    with pytest.raises(CorruptFileError, match="no good"):
        write(tmp_path / "file", [pending("a", "uint8", (1000,), lambda: steps)])
    assert not ahead_threads()
    assert len(begun) < 100


def test_no_more_is_computed_ahead_than_agreed(tmp_path: Path) -> None:
    living, most, lock = 0, 0, threading.Lock()

    def steps() -> Iterable[Segment]:
        for _ in range(200):
            yield Compute(size_bytes=1, run=run)

    def run() -> Array:
        nonlocal living, most
        with lock:
            living += 1
            most = max(most, living)
        return np.zeros(1, np.uint8)

    def taken(done: int, total: int) -> None:
        nonlocal living
        with lock:
            living -= 1

    write(tmp_path / "file", [pending("a", "uint8", (200,), steps)], taken)
    assert most <= ahead.AHEAD + 1


def test_a_source_that_is_cut_while_it_is_read_is_an_error_and_not_the_end(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "source", {"a": np.zeros(1 << 20, np.uint8)})
    tensor = safetensors_file.read(tmp_path / "source")["a"]
    os.truncate(tmp_path / "source", 1 << 19)
    span = Span(tensor=tensor, begin=tensor.begin, size_bytes=tensor.nbytes)
    with pytest.raises(CorruptFileError, match="cut while it was read"):
        write(tmp_path / "out", [pending("a", "uint8", (1 << 20,), lambda: [span])])
    with pytest.raises(CorruptFileError, match="cut while it was read"):
        list(tensor.blocks())
    with pytest.raises(CorruptFileError, match="cut while it was read"):
        tensor.rows(slice(1 << 19, 1 << 20))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_the_systems_own_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        write(
            Path("/dev/full"),
            [pending("a", "uint8", (9 << 20,), lambda: [computed(np.zeros(9 << 20, np.uint8))])],
        )
    assert not ahead_threads()


def test_a_stored_file_is_closed_with_its_last_tensor(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(100))
    before = len(os.listdir("/proc/self/fd"))
    file = StoredFile(tmp_path / "file")
    assert len(os.listdir("/proc/self/fd")) > before
    del file
    assert len(os.listdir("/proc/self/fd")) == before


_CHILD = """
import resource, sys
from pathlib import Path
import numpy as np
from builder import safetensors_file
from builder.safetensors_writer import Compute, PendingTensor, Span, write
tensor = safetensors_file.read(Path(sys.argv[1]))["a"]
size = 1 << 20
def segments():
    yield Span(tensor=tensor, begin=tensor.begin, size_bytes=tensor.nbytes)
    for at in range(0, tensor.nbytes // 2, size // 2):
        yield Compute(size_bytes=size, run=lambda a=at: tensor.rows(slice(a, a + size // 2))
                      .astype(np.uint16))
count = int(sys.argv[3])
tensors = [PendingTensor(name=str(n), dtype="uint16", shape=(tensor.nbytes,), segments=segments)
           for n in range(count)]
write(Path(sys.argv[2]), tensors)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_number_of_tensors(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "source", {"a": np.ones(64 << 20, np.uint8)})

    def peak_kib(count: int) -> int:
        arguments = [str(tmp_path / "source"), str(tmp_path / "out"), str(count)]
        run = subprocess.run(
            [sys.executable, "-c", _CHILD, *arguments], capture_output=True, text=True, check=True
        )
        return int(run.stdout)

    assert peak_kib(6) < peak_kib(1) + (32 << 10)
