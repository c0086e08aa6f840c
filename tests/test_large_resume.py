"""An interrupted prediction of a large image is resumed and gives the same bytes."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

import killed_large
from killed_large import SIDE, PooledBrightness
from killed_prediction import CLASSES
from pixelwise.errors import InputError
from pixelwise.folder_lock import NAME as LOCK
from pixelwise.inference import FolderResult, InferenceOptions, PredictionError, Predictor
from pixelwise.inference.batch.large_images import predict_large_images
from pixelwise.inference.batch.tile_progress_file import TileProgressFile
from pixelwise.inference.tiling.tile_progress import PoolingSums
from pixelwise.interrupts import StoppedError

SIZES = {"a": (700, 430), "b": (390, 610)}
TOTAL = 30  # tiles of a: five rows of three, once for the pooling and once for the labels
KILLS = int(os.environ.get("PIXELWISE_KILLS", "12"))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, (height, width) in SIZES.items():
        rows = np.linspace(0, 120, height)[:, None, None]
        pixels = (rows + rng.integers(0, 130, (height, width, 3))).astype(np.uint8)
        tifffile.imwrite(folder / f"{name}.tif", pixels, tile=(64, 64), photometric="rgb")
    return folder


class Counting:
    """Records the tiles of a run, and calls `action` at one of them."""

    def __init__(self, at: int = 0, action: Callable[[], None] = lambda: None) -> None:
        self.at, self.action = at, action
        self.tiles: list[tuple[str, int, int]] = []

    @contextmanager
    def __call__(self, path: Path, size: tuple[int, int]) -> Iterator[Callable[[int, int], None]]:
        assert size == SIZES[path.stem]

        def progress(done: int, total: int) -> None:
            self.tiles.append((path.stem, done, total))
            if len(self.tiles) == self.at:
                self.action()

        yield progress


def run(
    images: Path,
    out: Path,
    watch: Counting | None = None,
    *,
    tile: int = SIDE,
    network_id: str = "",
) -> FolderResult:
    options = InferenceOptions(tile=tile)
    predictor = Predictor(PooledBrightness(), CLASSES, options=options, network_id=network_id)
    return predict_large_images(predictor, images, out, watch=watch or Counting())


def contents(folder: Path) -> dict[str, bytes]:
    """Return the content of each file but the lock, which a kill may leave behind."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != LOCK}


class GaveUpError(Exception):
    pass


def give_up() -> None:
    raise GaveUpError


def test_a_run_stopped_at_any_tile_is_resumed_to_the_same_bytes(
    images: Path, tmp_path: Path
) -> None:
    (images / "b.tif").unlink()
    uninterrupted = Counting()
    run(images, tmp_path / "whole", uninterrupted)
    expected = contents(tmp_path / "whole")
    assert set(expected) == {"a.tif"}
    mask = tifffile.imread(tmp_path / "whole" / "a.tif")
    image = tifffile.imread(images / "a.tif")[..., 0]
    brighter = image - np.float32(image.mean())
    assert (mask == np.stack([-brighter, np.full_like(brighter, 20), brighter]).argmax(0)).all()
    total = len(uninterrupted.tiles)
    per_row = 3  # tiles
    assert total == TOTAL
    for number in range(1, total):
        out = tmp_path / str(number)
        with pytest.raises(GaveUpError):
            run(images, out, Counting(number, give_up))
        assert not (out / "a.tif").exists()
        again = Counting()
        run(images, out, again)
        assert contents(out) == expected, number
        assert again.tiles[-1] == ("a", total, total)
        # Two rows are computed again: the unfinished one, and the one above it for blending.
        assert len(again.tiles) <= total - number + 2 * per_row
    assert len(again.tiles) <= 2 * per_row


def test_a_finished_image_is_not_predicted_again(images: Path, tmp_path: Path) -> None:
    with pytest.raises(GaveUpError):
        run(images, tmp_path / "out", Counting(TOTAL + 5, give_up))
    again = Counting()
    result = run(images, tmp_path / "out", again)
    assert (result.written, result.kept, result.outdated) == (1, 1, False)
    assert {name for name, _, _ in again.tiles} == {"b"}
    run(images, tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize("change", ["options", "network", "image"])
def test_an_unfinished_image_is_started_over_if_anything_changes(
    change: str, images: Path, tmp_path: Path
) -> None:
    (images / "b.tif").unlink()
    with pytest.raises(GaveUpError):
        run(images, tmp_path / "out", Counting(20, give_up))
    if change == "image":
        pixels = tifffile.imread(images / "a.tif")
        tifffile.imwrite(images / "a.tif", pixels[::-1], photometric="rgb")
    changed: dict[str, Any] = {
        "options": {"tile": SIDE + 16},
        "network": {"network_id": "another"},
        "image": {},
    }[change]
    again, whole = Counting(), Counting()
    result = run(images, tmp_path / "out", again, **changed)
    assert result.outdated == (change != "image")
    run(images, tmp_path / "whole", whole, **changed)
    assert again.tiles == whole.tiles
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_run_after_the_tile(
    number: signal.Signals, images: Path, tmp_path: Path
) -> None:
    watch = Counting(17, lambda: os.kill(os.getpid(), number))
    with pytest.raises(
        StoppedError, match=r"a.tif: stopped with 17 of 30 tiles done: the same"
    ) as stopped:
        run(images, tmp_path / "out", watch)
    assert stopped.value.exit_code == 128 + number
    assert len(watch.tiles) == 17
    run(images, tmp_path / "out")
    run(images, tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize("what", ["mask", "tile_progress"])
def test_a_full_disk_is_one_line_and_keeps_finished_tiles(
    what: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Counting()

    def full(*_: object) -> None:
        if len(watch.tiles) >= 20:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        if what == "mask":
            patch.setattr(tifffile.FileHandle, "write_array", full)
            patch.setattr(tifffile.FileHandle, "write", full)
        else:
            patch.setattr(os, "fsync", full)
        with pytest.raises(PredictionError, match=r"cannot be written \(No space left on device\)"):
            run(images, tmp_path / "out", watch)
    assert not list((tmp_path / "out").glob("*.tif*"))
    again = Counting()
    run(images, tmp_path / "out", again)
    assert again.tiles[0][1] > 12
    run(images, tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_mask_never_replaces_its_image(images: Path) -> None:
    before = contents(images)
    with pytest.raises(InputError, match=r"a.tif: is the image itself: choose another --out"):
        run(images, images)
    assert contents(images) == before


def test_a_torn_progress_file_is_used_up_to_the_damage(tmp_path: Path) -> None:
    path = tmp_path / "tile_progress"
    strips = [np.full((3, 5), value, np.uint8) for value in (1, 2)]
    sums = PoolingSums(2, np.array([0.1, 1e300]), 2**40)
    with TileProgressFile(path, "key") as tile_progress:
        tile_progress.save_sums(0, PoolingSums(1, np.array([7.0, 7.0]), 5))
        tile_progress.save_sums(0, sums)
        after_sums = path.stat().st_size
        for strip in tile_progress.record(iter(strips)):
            assert strip.shape == (3, 5)
    data = path.read_bytes()
    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        with TileProgressFile(path, "key") as tile_progress:
            found = list(tile_progress.record(iter([])))
            assert tile_progress.rows == len(found)
            assert all((one == two).all() for one, two in zip(found, strips, strict=False))
            if length >= after_sums:
                saved = tile_progress.sums(0)
                assert (saved.rows, saved.positions) == (2, 2**40)
                assert (saved.total == sums.total).all()
    assert len(found) == 2
    changed = bytearray(data)
    changed[-1] ^= 1
    path.write_bytes(changed)
    with TileProgressFile(path, "key") as tile_progress:
        assert tile_progress.rows == 1
    # A power cut can leave zeros or arbitrary bytes.
    for tail in (b"\0" * 4096, b"\2" + b"\xff" * 100, b"\1" + b"\0" * 100, bytes(range(256))):
        path.write_bytes(data + tail)
        with TileProgressFile(path, "key") as tile_progress:
            assert tile_progress.rows == 2
        assert path.read_bytes() == data
    with TileProgressFile(path, "yek") as tile_progress:  # a key of the same length
        assert tile_progress.rows == tile_progress.sums(0).rows == 0
    assert path.read_bytes() == b"yek\n"


class Half:
    """A file whose first write is cut short and whose next write fails."""

    def __init__(self, file: Any) -> None:
        self.file, self.full = file, False

    def write(self, data: memoryview) -> int:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.full = True
        return int(self.file.write(data[: len(data) // 2]))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def test_a_record_that_could_not_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills up within a record, and has room again once the record is removed."""
    path = tmp_path / "tile_progress"
    strip = np.ones((3, 5), np.uint8)
    with TileProgressFile(path, "key") as tile_progress:
        list(tile_progress.record(iter([strip])))
        data = path.read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(tile_progress, "_file", Half(tile_progress._file))
            with pytest.raises(OSError, match="No space left"):
                tile_progress.save_sums(0, PoolingSums(1, np.ones(4), 1))
    assert path.read_bytes() == data
    with TileProgressFile(path, "key") as tile_progress:
        assert tile_progress.rows == 1


def test_a_run_killed_at_any_moment_is_resumed_to_the_same_files(
    images: Path, tmp_path: Path
) -> None:
    """kill -9 at chosen places, PIXELWISE_KILLS times."""
    run(images, tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    rng = random.Random(0)
    places = list(killed_large.PLACES)
    rng.shuffle(places)
    kills = round_ = 0
    while kills < KILLS:
        out = tmp_path / f"out{round_}"
        for place in [*places[round_ % len(places) :], *places, "-"]:
            if killed(images, out, place, rng.randint(1, 3)):
                kills += 1
            elif contents(out) == expected:  # the run was complete
                break
            finals = {path.name for path in out.glob("*.tif")}
            assert all((out / name).read_bytes() == expected[name] for name in finals)
            if kills >= KILLS:
                break
        killed(images, out, "-", 1)
        assert contents(out) == expected
        round_ += 1


def killed(images: Path, out: Path, place: str, times: int) -> bool:
    done = subprocess.run(
        [sys.executable, killed_large.__file__, str(images), str(out), place, str(times)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode in {0, -signal.SIGKILL}, done.stderr
    return done.returncode != 0
