"""Where a model lies and its checkpoint goes: links, a hub's cache, read-only places."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from builder.checkpoint_check import check
from builder.convert import convert
from builder.digest import of as digest_of
from builder.errors import OutputError

WEIGHTS = "rank0.safetensors"


@pytest.fixture
def hub_snapshot(tiny_folder: Path, tmp_path: Path) -> Path:
    """The model as a hub's client keeps it: links into a folder of blobs."""
    cache = tmp_path / "hub" / "models--someone--Tiny-1B"
    snapshot = cache / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    for number, file in enumerate(sorted(tiny_folder.iterdir())):
        blob = cache / "blobs" / f"{number:040x}"
        shutil.copyfile(file, blob)
        (snapshot / file.name).symlink_to(os.path.relpath(blob, snapshot))
    return snapshot


def test_a_hubs_cache_is_a_model_of_the_hubs_name(
    hub_snapshot: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    made = convert(hub_snapshot, tmp_path / "from_links")
    convert(tiny_folder, tmp_path / "from_files")
    assert made.about["name"] == "Tiny-1B"
    both = [digest_of(tmp_path / name / WEIGHTS) for name in ("from_links", "from_files")]
    assert both[0] == both[1]
    written = list((tmp_path / "from_links").iterdir())
    assert not any(path.is_symlink() for path in written), "an artifact doesn't lean on its source"


def test_a_link_to_the_model_is_the_model(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tiny_folder)
    convert(tmp_path / "link", tmp_path / "out")
    check(tmp_path / "out")


def test_a_link_as_output_keeps_pointing_to_the_checkpoint(
    tiny_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    convert(tiny_folder, tmp_path / "out")
    assert (tmp_path / "out").is_symlink()
    check(tmp_path / "disk")


def test_a_link_that_points_nowhere_is_told(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "gone" / "away")
    convert(tiny_folder, tmp_path / "out")
    check(tmp_path / "gone" / "away")


def test_a_folder_that_trtbuild_did_not_make_is_left_alone(
    tiny_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="trtbuild didn't make it"):
        convert(tiny_folder, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_an_empty_folder_is_used(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    convert(tiny_folder, tmp_path / "out")
    check(tmp_path / "out")


def test_a_read_only_target_is_told(tiny_folder: Path, read_only_disk: Path) -> None:
    with pytest.raises(OutputError, match=r"can't write .*Read-only file system; choose another"):
        convert(tiny_folder, read_only_disk / "out")
