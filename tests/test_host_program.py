"""Training inside a program: its settings and states, its script, its processes and memory."""

from __future__ import annotations

import os
import pickle
import random
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils.data import get_worker_info

from pixelwise.data.custom_dataset import from_datasets
from pixelwise.data.dataset import open_dataset
from pixelwise.data.scenes import write_scenes
from pixelwise.data.transforms import Augmentation
from pixelwise.errors import InputError
from pixelwise.recipes.schema import Recipe
from pixelwise.training import (
    Callback,
    TrainingError,
    TrainingStoppedError,
    load_recipe,
    loading,
    resume,
    train,
)
from pixelwise.training.loading import AugmentedSplit, BatchOrder, iterate, make_loader
from settings import DROPOUT

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a single core


def recipe(**overrides: Any) -> Recipe:
    """A small network with dropout."""
    return load_recipe(None, {**DROPOUT, "epochs": 1, **overrides})


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"), train=4, val=1, height=32, width=48)


@pytest.fixture(scope="module")
def expected(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bundle of a training in a plain program."""
    out = tmp_path_factory.mktemp("plain") / "run"
    return train(scenes, out, recipe()).last.read_bytes()


def global_state() -> dict[str, Any]:
    return {
        "python": random.getstate(),
        "numpy": [np.array(part).tolist() for part in np.random.get_state()],
        "torch": torch.get_rng_state().tolist(),
        "dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "environment": dict(os.environ),
        "handlers": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "autocast": torch.is_autocast_enabled("cpu"),
        "device": torch.get_default_device(),
    }


@pytest.mark.parametrize("error", [False, True])
def test_the_state_of_the_program_is_restored(error: bool, scenes: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    random.seed(5)
    before = global_state()
    if error:
        with pytest.raises(InputError, match="batch_size"):
            train(scenes, tmp_path / "run", recipe(**{"augmentation.crop": "image"}))
    else:
        train(scenes, tmp_path / "run", recipe(seed=3))
    assert global_state() == before


@pytest.mark.parametrize("setting", ["no_grad", "inference_mode", "autocast", "float64", "device"])
def test_settings_of_the_program_do_not_change_the_result(
    setting: str, scenes: Path, tmp_path: Path, expected: bytes
) -> None:
    with ExitStack() as stack:
        if setting == "no_grad":
            stack.enter_context(torch.no_grad())
        elif setting == "inference_mode":
            stack.enter_context(torch.inference_mode())
        elif setting == "autocast":
            stack.enter_context(torch.autocast("cpu", dtype=torch.bfloat16))
        elif setting == "float64":
            stack.callback(torch.set_default_dtype, torch.get_default_dtype())
            torch.set_default_dtype(torch.float64)
        else:
            stack.enter_context(torch.device("meta"))
        before = global_state() if setting != "device" else {}
        run = train(scenes, tmp_path / "run", recipe())
        assert run.last.read_bytes() == expected
        if before:
            assert global_state() == before


def test_importing_training_keeps_the_warning_filters() -> None:
    script = (
        "import warnings, sympy, torch; before = warnings.filters[:]; import pixelwise.training; "
        "assert warnings.filters == before"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=100)


def test_trainings_in_two_threads_give_the_result_of_one(
    scenes: Path, tmp_path: Path, expected: bytes
) -> None:
    outs = [tmp_path / "one", tmp_path / "two"]
    threads = [threading.Thread(target=train, args=(scenes, out, recipe())) for out in outs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(out / "last.safetensors").read_bytes() == expected for out in outs] == [True, True]


# --- Worker processes

SCRIPT = """
import multiprocessing, sys
import pixelwise
multiprocessing.set_start_method(sys.argv[1], force=True)
settings = {"device": "cpu", "data.workers": 2, "model.options.width": 1 / 32}
pixelwise.train(sys.argv[2], out=sys.argv[3], model="fcn32s", weights="none", epochs=1, quiet=True,
                settings=settings)
"""


@pytest.mark.parametrize("method", ["spawn", pytest.param("forkserver", marks=pytest.mark.slow)])
def test_a_script_without_a_guard_is_refused_in_one_line(
    method: str, scenes: Path, tmp_path: Path
) -> None:
    script, out = tmp_path / "script.py", tmp_path / "run"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), method, str(scenes), str(out)],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1  # of the call in the script
    line = done.stderr.splitlines()[-1]
    assert "data.workers = 2" in line
    assert 'under `if __name__ == "__main__":`, or set data.workers=0' in line
    assert not out.exists()


def test_cached_images_are_not_sent_to_worker_processes(scenes: Path) -> None:
    data = open_dataset(scenes)
    sent = pickle.dumps(data)
    assert len(sent) == len(pickle.dumps(open_dataset(scenes, cache_bytes=0)))
    sample = data.splits["train"][0]
    for array, other in zip(data.read(sample), pickle.loads(sent).read(sample), strict=True):
        np.testing.assert_array_equal(array, other)


def test_workers_do_without_shared_memory_if_it_is_small(
    scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = open_dataset(scenes, splits=("train",))
    dataset = AugmentedSplit(data, "train", Augmentation(crop=(32, 48)), seed=4)

    def batches(workers: int) -> list[Any]:
        order = BatchOrder(4, batch_size=2, seed=4)
        order.begin(1)
        return list(iterate(make_loader(dataset, order, workers=workers)))

    plain = batches(0)
    needed = 8 * 2 * 32 * 48 * 4  # 8 batches of two images with three channels and a mask
    monkeypatch.setattr(loading, "_free_bytes", lambda folder: needed - 1)
    monkeypatch.setattr(torch.UntypedStorage, "_new_shared", classmethod(lambda *_, **__: 1 / 0))
    for (images, masks), (other_images, other_masks) in zip(plain, batches(2), strict=True):
        assert torch.equal(images, other_images)
        assert torch.equal(masks, other_masks)
    monkeypatch.setattr(loading, "_free_bytes", lambda folder: needed)
    with pytest.raises(ZeroDivisionError):
        batches(2)


class Pairs:
    """Training pairs; `broken` breaks reading in workers."""

    def __init__(self, broken: str = "") -> None:
        self.broken = broken

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[NDArray[Any], NDArray[Any]]:
        mask = np.zeros((32, 32), np.uint8)
        mask[:, 16:] = 1
        if get_worker_info() is not None:
            if self.broken == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            mask = mask[1:]
        return np.zeros((32, 32, 3), np.uint8), mask


def test_a_killed_worker_ends_the_run_in_one_line(tmp_path: Path) -> None:
    data = from_datasets(train=Pairs("killed"), val=Pairs(), classes=("a", "b"))
    with pytest.raises(TrainingError) as raised:
        train(data, tmp_path / "run", recipe(**{"data.workers": 1}))
    (line,) = raised.value.problems
    assert "\n" not in line
    assert "data.workers = 1: " in line
    assert "resumes from the last checkpoint; with data.workers=0" in line


class StopAll(Callback):
    """Send SIGTERM to the training process and its workers, as SLURM and systemd do."""

    def on_step(self, *, epoch: int, step: int, steps: int, loss: float, images: int) -> None:
        if (epoch, step) == (2, 1):
            for pid in (os.getpid(), *(int(child.pid or 0) for child in active_children())):
                os.kill(pid, signal.SIGTERM)


def test_a_signal_that_also_ends_the_workers_stops_the_run(scenes: Path, tmp_path: Path) -> None:
    settings = recipe(**{"data.workers": 1, "epochs": 2})
    uninterrupted = train(scenes, tmp_path / "uninterrupted", settings)
    with pytest.raises(TrainingStoppedError) as raised:
        train(scenes, tmp_path / "run", settings, callback=StopAll())
    assert raised.value.exit_code == 143
    (line,) = raised.value.problems
    assert "\n" not in line
    run = resume(tmp_path / "run")
    assert run.last.read_bytes() == uninterrupted.last.read_bytes()


def test_a_problem_of_the_data_in_a_worker_is_one_line(tmp_path: Path) -> None:
    data = from_datasets(train=Pairs("size"), val=Pairs(), classes=("a", "b"))
    with pytest.raises(InputError) as raised:
        train(data, tmp_path / "run", recipe(**{"data.workers": 1}))
    (line,) = raised.value.problems
    assert line.endswith("it must be uint8 (32, 32), the size of its image")
    assert "\n" not in line
