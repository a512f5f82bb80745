"""The reader takes what the reference implementation writes and refuses what doesn't add up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_files import write_safetensors

from builder import safetensors_file
from builder.dtypes import NUMPY
from builder.errors import CorruptFileError


def file_of(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(text) if length is None else length
    path.write_bytes(size.to_bytes(8, "little") + text + data)
    return path


def entry(begin: int, end: int, shape: list[int], dtype: str = "U8") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize("dtype", sorted(NUMPY))
def test_every_dtype_comes_back_as_it_was_written(tmp_path: Path, dtype: str) -> None:
    array = np.arange(12).reshape(3, 4).astype(NUMPY[dtype])
    write_safetensors(tmp_path / "file", {"a": array, "empty": array[:0], "one": array[0, 0:1]})
    tensors = safetensors_file.read(tmp_path / "file")
    assert list(tensors) == ["a", "empty", "one"]
    assert tensors["a"].dtype == dtype
    assert tensors["a"].shape == (3, 4)
    assert tensors["a"].data() == array.tobytes()
    assert tensors["a"].numpy().tobytes() == array.tobytes()
    assert not tensors["a"].numpy().flags.writeable
    assert tensors["empty"].numpy().shape == (0, 4)


@pytest.mark.reference
def test_the_reference_implementation_reads_what_is_written_and_the_reverse(tmp_path: Path) -> None:
    numpy_io = pytest.importorskip("safetensors.numpy")
    arrays = {
        "wide": np.arange(6, dtype=np.float64).reshape(2, 3),
        "bytes": np.arange(5, dtype=np.uint8),
        "half": np.arange(4, dtype=np.float16),
    }
    write_safetensors(tmp_path / "ours", arrays)
    numpy_io.save_file(arrays, tmp_path / "theirs", {"format": "pt"})
    theirs = numpy_io.load_file(tmp_path / "ours")
    ours = safetensors_file.read(tmp_path / "theirs")
    for name, array in arrays.items():
        assert np.array_equal(theirs[name], array)
        assert np.array_equal(ours[name].numpy(), array)


def test_a_large_tensor_comes_in_blocks_that_are_together_the_tensor(tmp_path: Path) -> None:
    array = np.arange(3 * safetensors_file.BLOCK_BYTES // 8 + 5, dtype=np.float32)
    write_safetensors(tmp_path / "file", {"a": array})
    tensor = safetensors_file.read(tmp_path / "file")["a"]
    blocks = list(tensor.blocks())
    assert all(block.nbytes <= safetensors_file.BLOCK_BYTES for block in blocks)
    assert np.array_equal(np.concatenate(blocks), array)


def test_every_tensor_is_aligned_whatever_the_order(tmp_path: Path) -> None:
    write_safetensors(
        tmp_path / "file",
        {"odd": np.zeros(3, np.uint8), "f32": np.ones(2, np.float32), "f16": np.ones(1, "f2")},
    )
    for tensor in safetensors_file.read(tmp_path / "file").values():
        assert tensor.numpy().flags.aligned


@pytest.mark.parametrize(
    ("header", "data", "said"),
    [
        ({"a": entry(0, 4, [4])}, b"123", "truncated.*tensor a"),
        ({"a": entry(0, 4, [4])}, b"12345", "1 bytes after"),
        ({"a": entry(0, 4, [5])}, b"1234", "tensor a.*4 bytes for U8"),
        ({"a": entry(0, 3, [3]), "b": entry(2, 4, [2])}, b"1234", "tensor b.*overlaps"),
        ({"a": entry(0, 1, [1]), "b": entry(2, 4, [2])}, b"1234", "tensor b.*hole"),
        ({"a": entry(0, 4, [4], "U7")}, b"1234", "tensor a.*dtype 'U7'"),
        ({"a": entry(-4, 0, [4])}, b"1234", "tensor a"),
        ({"a": entry(0, 4, [-4])}, b"1234", "tensor a"),
        ({"a": entry(0, 4, [2.0, 2])}, b"1234", "tensor a"),  # type: ignore[list-item]
        ({"a": {"dtype": "U8"}}, b"", "tensor a"),
        ({"a": 7}, b"", "tensor a"),
        ([1], b"", "isn't a JSON object"),
        (b"{not json", b"", "isn't JSON"),
        (b'{"a": {}, "a": {}}', b"", "twice"),
        (b"\xff\xfe{}", b"", "isn't JSON"),
    ],
)
def test_what_does_not_add_up_is_refused_by_name(
    tmp_path: Path, header: Any, data: bytes, said: str
) -> None:
    path = file_of(tmp_path / "model.safetensors", header, data)
    with pytest.raises(CorruptFileError, match=said) as caught:
        safetensors_file.read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("length", [1000, 1 << 40, (1 << 64) - 1])
def test_an_absurd_header_length_is_refused(tmp_path: Path, length: int) -> None:
    with pytest.raises(CorruptFileError):
        safetensors_file.read(file_of(tmp_path / "file", {}, length=length))


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    path.write_bytes(data)
    try:
        safetensors_file.read(path)
    except CorruptFileError:
        return


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "whole", {"a": np.arange(8, dtype=np.int16)})
    whole = (tmp_path / "whole").read_bytes()
    for size in range(len(whole)):
        (tmp_path / "cut").write_bytes(whole[:size])
        with pytest.raises(CorruptFileError):
            safetensors_file.read(tmp_path / "cut")
