"""Prediction of a folder: in order, complete files whatever happens, resumed when interrupted."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import killed_prediction
from killed_prediction import CLASSES, Brightness
from pixelwise.data.image_files import list_images, read_mask
from pixelwise.errors import InputError
from pixelwise.folder_lock import NAME as LOCK
from pixelwise.folder_lock import FolderLock
from pixelwise.inference import (
    FolderResult,
    InferenceOptions,
    PredictionError,
    Predictor,
    predict_folder,
)
from pixelwise.inference.batch import folder_journal
from pixelwise.inference.batch.pipeline import QUEUE_BYTES, QUEUE_ITEMS, overlapped
from pixelwise.inference.tiling.tiled_model import DEFAULT_REQUIREMENTS, TiledModel
from pixelwise.interrupts import StoppedError

KILLS = int(os.environ.get("PIXELWISE_KILLS", "30"))
IMAGES = 8


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images; two have the same stem."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name in ("a.jpg", "a.png", *(f"{number}.png" for number in range(IMAGES - 2))):
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(folder / name)
    return folder


class Counting(Brightness):
    """Counts the images; `at`: an action to run at an image, such as n3=... at the third."""

    def __init__(self, **at: object) -> None:
        self.count = 0
        self.at = at
        self.lock = threading.Lock()

    def predict_labels(self, image: np.ndarray) -> np.ndarray:
        with self.lock:
            self.count += 1
            action = self.at.get(f"n{self.count}")
        if callable(action):
            action()
        return super().predict_labels(image)


class Concurrent(Counting):
    """The same for three images at once, of which the first takes longest.

    Attributes:
        together: The largest number of images at the same time.
        alone: The number of images that were not predicted concurrently.
    """

    concurrency = 3

    def __init__(self, **at: object) -> None:
        super().__init__(**at)
        self.inside = self.together = self.alone = 0

    def predict_labels(self, image: np.ndarray) -> np.ndarray:
        self.alone += 1
        return super().predict_labels(image)

    def predict_labels_concurrently(self, image: np.ndarray) -> np.ndarray:
        with self.lock:
            self.inside += 1
            self.together = max(self.together, self.inside)
        time.sleep(0.02 / (1 + self.count))
        index = super().predict_labels(image)
        with self.lock:
            self.inside -= 1
        return index


def run(
    images: Path, out: Path, runtime: Brightness | None = None, **options: object
) -> FolderResult:
    predictor = Predictor(runtime or Counting(), CLASSES)
    return predict_folder(predictor, images, out, **options)  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, bytes]:
    """Return the content of each file but the lock, which a kill may leave behind."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != LOCK}


# --- Overlapped steps


@pytest.mark.parametrize("concurrency", [1, 3])
def test_three_steps_overlap_in_order_with_bounded_queues(concurrency: int) -> None:
    waiting, most, lock = 0, 0, threading.Lock()

    def prepare(item: int) -> int:
        nonlocal waiting, most
        with lock:
            waiting += 1
            most = max(most, waiting)
        time.sleep(0.001 * (item % 3))
        return item

    def finish(item: int, worked: int) -> int:
        nonlocal waiting
        time.sleep(0.001 * (item % 5))
        with lock:
            waiting -= 1
        return worked

    def work(item: int) -> int:
        if item % 7 == 3:
            raise InputError(f"{item}: bad")
        return 10 * item

    steps = overlapped(
        range(60),
        prepare=prepare,
        work=work,
        finish=finish,
        size=lambda _: 1,
        concurrency=concurrency,
    )
    seen = list(steps)
    assert [done.item for done in seen] == list(range(60))
    bad = [done.item for done in seen if done.fault is not None]
    assert bad == list(range(3, 60, 7))
    assert [done.result for done in seen if done.fault is None] == [
        10 * item for item in range(60) if item not in bad
    ]
    assert most - len(bad) <= 2 * QUEUE_ITEMS + 2


@pytest.mark.parametrize("concurrency", [1, 8])
def test_at_most_three_large_items_are_in_memory(concurrency: int) -> None:
    alive, most, lock = 0, 0, threading.Lock()

    def prepare(item: int) -> int:
        nonlocal alive, most
        with lock:
            alive += 1
            most = max(most, alive)
        return item

    def finish(item: int, worked: int) -> None:
        nonlocal alive
        time.sleep(0.002)
        with lock:
            alive -= 1

    steps = overlapped(
        range(20),
        prepare=prepare,
        work=lambda x: x,
        finish=finish,
        size=lambda _: QUEUE_BYTES,
        concurrency=concurrency,
    )
    for number, _ in enumerate(steps):
        if number == 2 * QUEUE_ITEMS:  # the first items are queued before a size is known
            most = alive
    assert most <= 3


def test_up_to_concurrency_items_are_worked_on_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=10)
    inside, most, lock = 0, 0, threading.Lock()

    def work(item: int) -> int:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        if item < 2:
            both.wait()  # fails if one waits for the other
        time.sleep(0.001)
        with lock:
            inside -= 1
        return item

    steps = overlapped(
        range(40),
        prepare=lambda x: x,
        work=work,
        finish=lambda item, worked: worked,
        size=lambda _: 1,
        concurrency=3,
    )
    assert [done.result for done in steps] == list(range(40))
    assert 2 <= most <= 3


@pytest.mark.parametrize("concurrency", [1, 3])
def test_after_a_stop_started_items_are_finished_and_no_others_start(concurrency: int) -> None:
    started: list[int] = []
    ended: list[int] = []

    def finish(item: int, worked: int) -> None:
        time.sleep(0.002)
        ended.append(item)

    steps = overlapped(
        range(100),
        prepare=lambda x: x,
        work=lambda x: started.append(x),
        finish=finish,
        size=lambda _: 1,
        stop=lambda: len(started) >= 10,
        concurrency=concurrency,
    )
    done = [one.item for one in steps]
    assert done == list(range(len(done)))
    assert sorted(ended) == sorted(started) == done
    assert 10 <= len(done) < 20


@pytest.mark.parametrize("concurrency", [1, 3])
def test_an_error_in_the_last_step_ends_the_run_and_leaves_no_thread(concurrency: int) -> None:
    before = threading.active_count()

    def finish(item: int, worked: int) -> None:
        raise OSError("full")

    steps = overlapped(
        range(20),
        prepare=lambda x: x,
        work=lambda x: x,
        finish=finish,
        size=lambda _: 1,
        concurrency=concurrency,
    )
    with pytest.raises(OSError, match="full"), contextlib.closing(steps):
        list(steps)
    assert threading.active_count() == before


# --- Concurrent prediction


def test_concurrent_prediction_writes_the_same_files(images: Path, tmp_path: Path) -> None:
    run(images, tmp_path / "one")
    runtime = Concurrent()
    seen: list[tuple[int, int]] = []
    result = run(images, tmp_path / "several", runtime, progress=lambda *done: seen.append(done))
    assert (result.written, runtime.count, runtime.alone) == (IMAGES, IMAGES, 0)
    assert 2 <= runtime.together <= 3
    assert contents(tmp_path / "several") == contents(tmp_path / "one")
    assert len(set(contents(tmp_path / "one").values())) == 2 * IMAGES  # all are different
    assert seen == [(number, IMAGES) for number in range(1, IMAGES + 1)]


def test_with_fewer_images_than_threads_each_image_gets_all_cores(
    images: Path, tmp_path: Path
) -> None:
    runtime = Concurrent()
    predict_folder(Predictor(runtime, CLASSES), list_images(images)[:2], tmp_path / "out")
    assert (runtime.alone, runtime.together) == (2, 0)


def test_without_support_or_with_crf_or_tta_images_are_predicted_one_by_one() -> None:
    flip, crf = InferenceOptions(flip=True), InferenceOptions(crf="camvid")
    assert Predictor(Concurrent(), CLASSES).concurrency == 3
    assert Predictor(Brightness(), CLASSES).concurrency == 1
    assert Predictor(Concurrent(), CLASSES, options=flip).concurrency == 1
    assert Predictor(Concurrent(), CLASSES, options=crf).concurrency == 1


def test_images_too_large_to_run_together_are_predicted_one_by_one() -> None:
    runtime = Concurrent()
    memory = 3 * 30 * 40 * DEFAULT_REQUIREMENTS.label_bytes_per_pixel
    network = TiledModel(runtime, memory=int(memory))
    rng = np.random.default_rng(0)
    for size, alone in (((30, 40), 0), ((31, 40), 1)):
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        np.testing.assert_array_equal(
            network.predict_labels_concurrently(image), image[..., 0] // 86
        )
        assert runtime.alone == alone
    tiled = TiledModel(runtime, tile=20)
    assert not tiled.in_one_pass((30, 40))
    with pytest.raises(InputError, match="receptive field"):  # which shows that it was tiled
        tiled.predict_labels_concurrently(image)


# --- Resuming


def test_a_complete_run_leaves_only_results_and_is_not_resumed(
    images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert run(images, out).written == IMAGES
    whole = contents(out)
    names = ["a.jpg", "a.png", *(str(number) for number in range(IMAGES - 2))]
    assert set(whole) == {f"{name}{kind}.png" for name in names for kind in ("", "_overlay")}
    with Image.open(images / "3.png") as image:
        np.testing.assert_array_equal(read_mask(out / "3.png"), np.asarray(image)[..., 0] // 86)
    again = run(images, out)
    assert (again.written, again.kept) == (IMAGES, 0)
    assert contents(out) == whole


@pytest.mark.parametrize("kind", [Counting, Concurrent])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_stopped_by_a_signal_is_resumed(
    number: int, kind: type[Counting], images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    stop = kind(n3=lambda: os.kill(os.getpid(), number))
    with pytest.raises(StoppedError, match=r"of 8 images finished: the same command") as stopped:
        run(images, out, stop)
    assert stopped.value.exit_code == 128 + number
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    masks = [path for path in out.glob("*.png") if "_overlay" not in path.name]
    assert 3 <= len(masks) < IMAGES
    assert all((out / f"{mask.stem}_overlay.png").exists() for mask in masks)
    assert [path.name for path in out.glob(".*")] == [".pixelwise-predict.jsonl"]
    rest = kind()
    result = run(images, out, rest)
    assert (result.kept, result.written) == (len(masks), IMAGES - len(masks))
    assert rest.count == result.written
    run(images, tmp_path / "whole")
    assert contents(out) == contents(tmp_path / "whole")


@pytest.fixture
def half(images: Path, tmp_path: Path) -> Path:
    """A copy of the images, stopped after at least three: TMP/images, TMP/out."""
    copy = tmp_path / "images"
    copy.mkdir()
    for path in list_images(images):
        (copy / path.name).write_bytes(path.read_bytes())
    with pytest.raises(StoppedError):
        run(copy, tmp_path / "out", Counting(n5=lambda: os.kill(os.getpid(), signal.SIGTERM)))
    return tmp_path


def kept(folder: Path, **options: object) -> int:
    return run(folder / "images", folder / "out", **options).kept


def finished(folder: Path) -> int:
    return len((folder / "out" / ".pixelwise-predict.jsonl").read_text().splitlines()) - 1


def test_changed_files_are_predicted_again(half: Path) -> None:
    """A changed image, a missing result, and a truncated one."""
    before = finished(half)
    assert before >= 4
    Image.new("RGB", (40, 30), "white").save(half / "images" / "0.png")
    (half / "out" / "1_overlay.png").unlink()
    (half / "out" / "2.png").write_bytes(b"half")
    assert kept(half) == before - 3
    assert (read_mask(half / "out" / "0.png") == 2).all()
    assert (half / "out" / "2.png").stat().st_size > 4


@pytest.mark.parametrize(
    "options",
    [{"crf": "camvid"}, {"tile": 2000}, {"scales": (1, 0.5)}, {"flip": True}, {"network_id": "2"}],
)
def test_other_options_or_another_network_discard_old_results(
    half: Path, options: dict[str, object]
) -> None:
    class WithLogits(Brightness):
        def logits(self, image: np.ndarray) -> np.ndarray:
            return np.stack([image[..., 0] // 86 == number for number in range(3)]).astype(
                "float32"
            )

    network_id = str(options.get("network_id", ""))
    chosen = {name: value for name, value in options.items() if name != "network_id"}
    predictor = Predictor(
        WithLogits(),
        CLASSES,
        options=InferenceOptions(**chosen),  # type: ignore[arg-type]
        network_id=network_id,
    )
    result = predict_folder(predictor, half / "images", half / "out")
    assert (result.kept, result.written, result.outdated) == (0, IMAGES, True)


def test_a_journal_of_version_0_1_is_discarded(half: Path) -> None:
    journal = half / "out" / ".pixelwise-predict.jsonl"
    _, *entries = journal.read_text().splitlines(keepends=True)
    header = {"format": 1, "settings": {"network": "", "parts": False, "runtime": "brightness"}}
    journal.write_text("".join([json.dumps(header) + "\n", *entries]))
    (half / "out" / ".pixelwise-predict.old").touch()  # 0.1 had files of other names, too
    result = run(half / "images", half / "out")
    assert (result.kept, result.outdated) == (0, True)
    assert list((half / "out").glob(".*")) == []


def test_overwrite_starts_over(half: Path) -> None:
    result = run(half / "images", half / "out", overwrite=True)
    assert (result.kept, result.outdated) == (0, False)


def test_a_run_that_may_overwrite_is_resumed_without_the_option(
    images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for number in range(IMAGES - 2):
        (out / f"{number}.png").write_bytes(b"by hand")
    with pytest.raises(InputError, match=r"holds 6 files .* such as 0.png, 1.png, 2.png: choose"):
        run(images, out)
    stop = Counting(n3=lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(StoppedError):
        run(images, out, stop, overwrite=True)
    result = run(images, out)
    assert result.kept >= 3
    assert result.kept + result.written == IMAGES
    run(images, tmp_path / "whole")
    assert contents(out) == contents(tmp_path / "whole")


def test_a_file_that_appears_during_the_run_is_kept(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def save() -> None:
        (out / "5.png").write_bytes(b"by hand")

    with pytest.raises(InputError, match=r"5.png: exists and was not written by this command"):
        run(images, out, Counting(n7=save))
    assert (out / "5.png").read_bytes() == b"by hand"
    assert sorted(path.name for path in out.glob("*.part")) == []


@pytest.mark.parametrize("torn", ['{"image": "/x', "\x00\x00\x00\n", '{"image": 3}\n'])
def test_a_torn_line_is_ignored(half: Path, torn: str) -> None:
    before = finished(half)
    with (half / "out" / ".pixelwise-predict.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(torn)
    assert kept(half) == before


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[1]\n"])
def test_an_unreadable_journal_is_ignored(half: Path, content: bytes) -> None:
    (half / "out" / ".pixelwise-predict.jsonl").write_bytes(content)
    assert kept(half) == 0


def test_two_processes_cannot_write_to_one_folder(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    busy = r"another pixelwise predict \(process \d+ on .*\) is writing there: wait until it ends"
    with FolderLock(out, "predict"), pytest.raises(InputError, match=busy):
        run(images, out)
    assert run(images, out).written == IMAGES
    assert not (out / LOCK).exists()


@pytest.mark.parametrize("kind", [Counting, Concurrent])
def test_bad_images_are_reported_and_the_others_predicted(
    kind: type[Counting], images: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for path in list_images(images):
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "1.png").write_bytes(b"")
    (folder / "4.png").write_bytes((folder / "4.png").read_bytes()[:300])
    seen: list[tuple[int, int]] = []
    result = run(folder, tmp_path / "out", kind(), progress=lambda *done: seen.append(done))
    assert result.written == IMAGES - 2
    assert [line.split(":")[0] for line in result.faults] == [
        str(folder / "1.png"),
        str(folder / "4.png"),
    ]
    assert seen == [(number, IMAGES) for number in range(1, IMAGES + 1)]
    assert list((tmp_path / "out").glob(".*")) == []
    for path in list_images(folder):
        path.write_bytes(b"")
    with pytest.raises(InputError) as all_bad:
        run(folder, tmp_path / "none", kind())
    assert len(all_bad.value.problems) == IMAGES
    assert not (tmp_path / "none").exists()


def test_without_overlays_only_masks_are_written(images: Path, tmp_path: Path) -> None:
    run(images, tmp_path / "out", overlay=False)
    assert len(list((tmp_path / "out").iterdir())) == IMAGES


def test_the_network_id_depends_on_the_weights(tiny_bundle: Path, tmp_path: Path) -> None:
    from pixelwise.weights.bundle import Bundle

    def network_id(path: Path) -> str:
        return Predictor.load(path, runtime="torch").network_id

    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(tiny_bundle.read_bytes())
    assert network_id(copy) == network_id(tiny_bundle)
    changed = Bundle.load(tiny_bundle)
    next(iter(changed.weights.values())).view(-1)[0] += 1
    changed.save(copy)
    assert network_id(copy) != network_id(tiny_bundle)


# --- Killed


def attempt(
    images: Path, out: Path, place: str, times: int, after: float | None, concurrency: int = 1
) -> bool:
    """Run killed_prediction.py, killed after `after` seconds; return whether it was killed."""
    arguments = [killed_prediction.__file__, images, out, place, times, concurrency]
    process = subprocess.Popen(
        [sys.executable, *map(str, arguments)], stderr=subprocess.PIPE, text=True
    )
    try:
        _, errors = process.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        process.kill()
        _, errors = process.communicate()
    assert process.returncode in {0, -signal.SIGKILL}, errors
    return process.returncode != 0


def test_a_run_killed_at_any_moment_is_resumed_to_the_same_files(
    images: Path, tmp_path: Path
) -> None:
    """kill -9, many times: at chosen places and at random moments, with and without concurrency.

    Images whose results had their final names are not predicted again, and files with final names
    are always the same as in the run that was not killed.
    """
    rng = random.Random(0)
    began = time.monotonic()
    whole = tmp_path / "whole"
    assert not attempt(images, whole, "-", 0, None)
    duration = time.monotonic() - began
    expected = contents(whole)
    log = whole.with_suffix(".predicted")
    assert len(log.read_text().splitlines()) == IMAGES
    places = [*killed_prediction.PLACES, "-"]
    kills = round_ = 0
    while kills < KILLS:
        out = tmp_path / f"out{round_}"
        log = out.with_suffix(".predicted")
        for number in range(3):
            place = places[(3 * round_ + number) % len(places)]
            after = rng.uniform(0.5, 1.1) * duration if place == "-" else None
            times, concurrency = rng.randint(1, 3), rng.choice([1, 3])
            killed = attempt(images, out, place, times, after, concurrency)
            kills += killed
            final = contents(out) if out.is_dir() else {}
            if final == expected:  # without a journal: the run was complete before the kill
                killed = False
                break
            final = {name: data for name, data in final.items() if not name.startswith(".")}
            assert final.items() <= expected.items()
            done = [
                path.name
                for path in list_images(images)
                if f"{_base(path)}.png" in final and f"{_base(path)}_overlay.png" in final
            ]
            log.write_text("")
            if not killed:
                break
        if killed:
            assert not attempt(images, out, "-", 0, None)
            assert set(log.read_text().split()).isdisjoint(done)
        assert contents(out) == expected
        round_ += 1


def _base(path: Path) -> str:
    return path.name if path.stem == "a" else path.stem


# --- A full disk


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
def test_a_run_ended_by_a_full_disk_is_resumed(
    tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_journal, "COMMIT_SECONDS", 0.0)
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    # The disk holds more results than may wait for the first commit, but not all of them.
    for number in range(24):
        noise = rng.integers(0, 256, (250, 300, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number:02d}.png")
    out = small_disk / "out"
    with pytest.raises(PredictionError, match=r"No space left on device.*resumes") as full:
        run(folder, out)
    assert full.value.exit_code == 1
    whole = sorted(path.name for path in out.glob("*_overlay.png"))
    assert 1 <= len(whole) < 24
    entries = (out / ".pixelwise-predict.jsonl").read_text().splitlines()[1:]
    assert [Path(json.loads(line)["image"]).stem for line in entries] == [
        name.split("_")[0] for name in whole
    ]
    assert list(out.glob("*.part")) == list(out.glob(".*.part")) == []
    subprocess.run(["mount", "-o", "remount,size=30m", str(small_disk)], check=True)
    assert run(folder, out).kept == len(whole)
    run(folder, tmp_path / "whole")
    assert contents(out) == contents(tmp_path / "whole")
