"""The lock of a folder: one process at a time, and none left behind by a kill."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import killed_lock
from fixture_types import MakeData
from pixelwise import folder_lock
from pixelwise.errors import InputError
from pixelwise.folder_lock import NAME, STALE_SECONDS, FolderLock
from pixelwise.recipes.load_recipe import load_recipe
from pixelwise.training import Callback, resume, train

BUSY = r"another pixelwise train \(process \d+ on .*\) is writing there: wait until it ends"


def test_a_folder_has_one_owner_and_no_trace_of_it_afterwards(tmp_path: Path) -> None:
    with FolderLock(tmp_path, "train"), pytest.raises(InputError, match=BUSY):
        FolderLock(tmp_path, "predict").take()
    assert list(tmp_path.iterdir()) == []
    with FolderLock(tmp_path / "new", "train") as lock:
        assert not (tmp_path / "new").exists()
        lock.take()
        with pytest.raises(InputError, match=BUSY):
            FolderLock(tmp_path / "new", "train").take()


@pytest.mark.parametrize("decided", ["decided", "undecided"])
def test_a_process_killed_at_any_step_leaves_a_lock_that_can_be_taken(
    decided: str, tmp_path: Path
) -> None:
    (tmp_path / "best.safetensors").write_text("precious")
    done = subprocess.run(
        [sys.executable, killed_lock.__file__, str(tmp_path), decided],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 40
    assert [path.name for path in tmp_path.iterdir()] == ["best.safetensors"]
    assert (tmp_path / "best.safetensors").read_text() == "precious"


def test_a_forked_process_does_not_keep_the_lock(tmp_path: Path) -> None:
    """Workers that load data outlive a trainer that was killed by some seconds."""
    code = f"""
import os, signal, time
from pathlib import Path
from pixelwise.folder_lock import FolderLock
FolderLock(Path({str(tmp_path)!r}), "train").take()
if os.fork() == 0:
    time.sleep(60)
    os._exit(0)
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.Popen([sys.executable, "-c", code])
    killed.wait()
    with FolderLock(tmp_path, "train"):
        pass


@pytest.fixture
def elsewhere(tmp_path: Path) -> Callable[[float], None]:
    """Write the lock of a process on another machine that was renewed some seconds ago."""

    def write(age: float) -> None:
        record = {"command": "train", "host": "ship", "boot": "other", "process": os.getpid()}
        (tmp_path / NAME).write_text(json.dumps(record))
        os.utime(tmp_path / NAME, (time.time() - age, time.time() - age))

    return write


def test_a_lock_of_another_machine_is_stale_by_its_age(
    elsewhere: Callable[[float], None], tmp_path: Path
) -> None:
    elsewhere(STALE_SECONDS / 2)
    with pytest.raises(InputError, match=r"process \d+ on ship.*its lock ends after 120 seconds"):
        FolderLock(tmp_path, "train").take()
    assert json.loads((tmp_path / NAME).read_text())["host"] == "ship"
    elsewhere(STALE_SECONDS + 5)
    with FolderLock(tmp_path, "train"):
        assert json.loads((tmp_path / NAME).read_text())["process"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_where_the_kernel_cannot_decide_a_living_process_keeps_its_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_lock, "_lock_by_kernel", lambda handle: False)
    monkeypatch.setattr(folder_lock, "DOUBT_SECONDS", 0.01)
    with FolderLock(tmp_path, "train"):
        os.utime(tmp_path / NAME, (0, 0))  # on the same machine, its age does not matter
        with pytest.raises(InputError, match=BUSY):
            FolderLock(tmp_path, "train").take()


def test_the_owner_renews_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_lock, "RENEW_SECONDS", 0.01)
    with FolderLock(tmp_path, "train"):
        os.utime(tmp_path / NAME, (0, 0))
        deadline = time.monotonic() + 30
        while (tmp_path / NAME).stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (tmp_path / NAME).stat().st_mtime > 0


TINY: dict[str, Any] = {
    "model.options.backbone": "tiny",
    "model.weights": "none",
    "epochs": 1,
    "data.workers": 0,
    "augmentation.crop": [24, 32],
    "batch_size": 2,
    "checkpoint_minutes": 0.0,
}


class Intruding(Callback):
    """At the first step, tries to start other runs in the same folder, then asks to stop."""

    def __init__(self, folder: Path, attempts: list[Callable[[], object]]) -> None:
        self.folder, self.attempts, self.refused = folder, attempts, 0

    def on_step(self, **_: Any) -> None:
        for attempt in self.attempts:
            before = {p: p.read_bytes() for p in self.folder.rglob("*") if p.is_file()}
            with pytest.raises(InputError, match=BUSY):
                attempt()
            assert {p: p.read_bytes() for p in self.folder.rglob("*") if p.is_file()} == before
            self.refused += 1
        self.attempts = []


def test_a_second_run_in_the_folder_of_a_live_one_is_refused(
    tmp_path: Path, make_folder_data: MakeData
) -> None:
    data = make_folder_data(tmp_path / "data", splits={"train": 4, "val": 2})
    recipe, out = load_recipe(None, TINY), tmp_path / "run"
    intruder = Intruding(
        out,
        [
            lambda: train(data, out, recipe),
            lambda: train(data, out, recipe, overwrite=True),
            lambda: resume(out),
        ],
    )
    run = train(data, out, recipe, callback=intruder)
    assert intruder.refused == 3
    assert run.best.exists()
    assert not (out / NAME).exists()


def test_a_run_in_a_folder_that_appears_meanwhile_is_refused(
    tmp_path: Path, make_folder_data: MakeData
) -> None:
    """The second run has checked the folder before the first one created it."""
    data = make_folder_data(tmp_path / "data", splits={"train": 4, "val": 2})
    recipe, out = load_recipe(None, TINY), tmp_path / "run"

    class First(Callback):
        def on_dataset_progress(self, done: int, total: int) -> None:
            if done == total and not out.exists():
                train(data, out, recipe)

    with pytest.raises(InputError, match="holds a run already"):
        train(data, out, recipe, callback=First())
    assert (out / "best.safetensors").exists()
