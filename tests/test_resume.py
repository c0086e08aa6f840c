"""Runs that are stopped, killed or out of disk space resume to the bits of an uninterrupted run."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import killed_run
from pixelwise.data.scenes import write_scenes
from pixelwise.errors import InputError
from pixelwise.recipes.schema import Recipe
from pixelwise.training import (
    Callback,
    TrainingError,
    TrainingStoppedError,
    load_recipe,
    resume,
    train,
)
from pixelwise.training.optimizer import make_optimizer, make_schedule
from pixelwise.training.resume_state import FORMAT, KEY, list_checkpoints, load_newest_checkpoint
from pixelwise.training.run_folder import Run
from pixelwise.weights.bundle import Bundle
from pixelwise.weights.tensor_file import read_tensor_file, write_tensor_file
from settings import DROPOUT

KILLS = int(os.environ.get("PIXELWISE_KILLS", "20"))
BUNDLES = ("best.safetensors", "last.safetensors")


def recipe(**overrides: Any) -> Recipe:
    """A small network with dropout and all augmentations: random states have to be restored."""
    return load_recipe(None, {**DROPOUT, "epochs": 3, "checkpoint_minutes": 0, **overrides})


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"), train=6, val=2, height=32, width=48)


@pytest.fixture(scope="module")
def uninterrupted(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An uninterrupted run."""
    return train(scenes, tmp_path_factory.mktemp("uninterrupted") / "run", recipe())


@pytest.fixture(scope="module")
def epoch_checkpoints(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same with checkpoints only at the end of epochs: the recipe is part of the bundle."""
    return train(
        scenes, tmp_path_factory.mktemp("epoch_checkpoints") / "run", recipe(checkpoint_minutes=100)
    )


def assert_same_bundles(one: Path, other: Path) -> None:
    for name in BUNDLES:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


class StopAt(Callback):
    """Send a signal to this process at a position of the run."""

    def __init__(self, *position: Any, number: int = signal.SIGTERM) -> None:
        self.position, self.number = position, number
        self.epoch = 1

    def _at(self, *position: Any) -> None:
        if position == self.position:
            os.kill(os.getpid(), self.number)

    def on_step(self, *, epoch: int, step: int, steps: int, loss: float, images: int) -> None:
        self.epoch = epoch
        self._at("step", epoch, step)

    def on_validation_progress(self, done: int, total: int) -> None:
        self._at("validating", self.epoch, done)

    def on_epoch_end(self, row: Mapping[str, Any]) -> None:
        self._at("epoch", row["epoch"])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "position",
    [
        ("step", 1, 1),
        ("step", 2, 2),
        ("step", 2, 3),
        ("validating", 2, 1),
        ("epoch", 1),
        ("step", 3, 3),
    ],
)
@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a single core
def test_a_stopped_run_resumes_to_the_same_bits(
    position: tuple[Any, ...],
    workers: int,
    scenes: Path,
    uninterrupted: Run,
    epoch_checkpoints: Run,
    tmp_path: Path,
) -> None:
    out = tmp_path / "run"
    more = {"data.workers": workers} if workers else {}
    settings = recipe(checkpoint_minutes=100, **more)
    with pytest.raises(TrainingStoppedError, match=f"--resume {out}") as stopped:
        train(scenes, out, settings, callback=StopAt(*position))
    assert stopped.value.exit_code == 143
    run = resume(out)
    if workers == 0:
        assert_same_bundles(out, epoch_checkpoints.folder)
    before, after = Bundle.load(uninterrupted.last), Bundle.load(run.last)
    assert all(torch.equal(before.weights[name], after.weights[name]) for name in before.weights)
    assert before.scores == after.scores
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines if line["event"] == "epoch"] == [1, 2, 3]
    assert sum(line["event"] == "resume" for line in lines) == 1
    assert [row["epoch"] for row in run.history] == [1, 2, 3]
    assert run.best_epoch == uninterrupted.best_epoch
    assert run.evaluation is not None
    assert run.evaluation.image_counts.mean_iou == uninterrupted.evaluation.image_counts.mean_iou  # type: ignore[union-attr]


def test_a_run_stops_only_after_an_update_of_accumulated_gradients(
    scenes: Path, tmp_path: Path
) -> None:
    settings = recipe(batch_size=1, **{"optimizer.accumulate": 4})  # of 6 batches: 4, then 2
    expected = train(scenes, tmp_path / "uninterrupted", settings)
    out = tmp_path / "run"
    with pytest.raises(TrainingStoppedError):
        train(scenes, out, settings, callback=StopAt("step", 2, 2))
    assert load_newest_checkpoint(out)[0].progress().step == 4
    resume(out)
    assert_same_bundles(out, expected.folder)


AUGMENTATION = {
    "vertical_flip": 0.5,
    "quarter_turns": 0.5,
    "rotation": 10.0,
    "rare_crops": 0.5,
    "hue": 0.1,
    "gamma": 0.3,
    "blur": 1.0,
    "noise": 8.0,
    "jpeg": 40,
    "cutout": 0.3,
}


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer.ema_decay": 0.9},
        {"precision": "bf16-mixed"},
        {"optimizer.name": "sgd"},
        {f"augmentation.{key}": value for key, value in AUGMENTATION.items()},
    ],
    ids=["ema", "bf16", "sgd", "augmentation"],
)
def test_other_settings_resume_exactly(
    settings: dict[str, Any], scenes: Path, tmp_path: Path
) -> None:
    run_recipe = recipe(epochs=2, **settings)
    expected = train(scenes, tmp_path / "uninterrupted", run_recipe)
    out = tmp_path / "run"
    with pytest.raises(TrainingStoppedError):
        train(scenes, out, run_recipe, callback=StopAt("step", 2, 2))
    resume(out)
    assert_same_bundles(out, expected.folder)
    assert all(math.isfinite(row["loss"]) for row in expected.history)
    assert all(row["val_mean_iou"] > 0 for row in expected.history)


def test_half_precision_needs_a_gpu(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="precision = '16-mixed': needs a GPU") as error:
        train(scenes, tmp_path / "run", recipe(precision="16-mixed"))
    assert len(error.value.problems) == 1
    assert not (tmp_path / "run").exists()


def test_ctrl_c_exits_with_130_and_a_second_one_stops_at_once(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingStoppedError) as stopped:
        train(scenes, tmp_path / "a", recipe(), callback=StopAt("step", 1, 1, number=signal.SIGINT))
    assert stopped.value.exit_code == 130

    class Impatient(Callback):
        def on_step(self, **_: Any) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(scenes, tmp_path / "b", recipe(), callback=Impatient())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert len(list_checkpoints(tmp_path / "b" / "checkpoints")) == 1  # the initial one


def test_two_checkpoints_are_kept_and_a_damaged_one_is_skipped(
    scenes: Path, uninterrupted: Run, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.raises(TrainingStoppedError):
        train(scenes, out, recipe(), callback=StopAt("step", 2, 2))
    before, last = list_checkpoints(out / "checkpoints")
    damaged = bytearray(last.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    last.write_bytes(bytes(damaged))
    run = resume(out)
    assert before.name in run.facts["resumed"]
    assert f"{last}: is damaged (its SHA-256 differs)" in run.facts["resumed"]
    assert_same_bundles(out, uninterrupted.folder)


def test_a_run_without_an_undamaged_checkpoint_is_refused(scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(scenes, out, recipe(epochs=1))
    for path in list_checkpoints(out / "checkpoints"):
        path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match=r"step-000000003.*cut off") as error:
        resume(out)
    assert len(error.value.problems) == 2
    for path in list_checkpoints(out / "checkpoints"):
        path.unlink()
    with pytest.raises(InputError, match="holds no checkpoint"):
        resume(out)
    with pytest.raises(InputError, match=r"data\.json: is missing"):
        resume(tmp_path)


def test_a_finished_run_does_not_change(scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = train(scenes, out, recipe(epochs=1))
    bundles = {name: (out / name).stat().st_mtime_ns for name in BUNDLES}
    again = resume(out)
    assert {name: (out / name).stat().st_mtime_ns for name in BUNDLES} == bundles
    assert again.history == first.history
    assert again.best_epoch == 1


def test_a_changed_dataset_is_refused(scenes: Path, tmp_path: Path) -> None:
    data = write_scenes(tmp_path / "data", train=4, val=1, height=32, width=32)
    out = tmp_path / "run"
    with pytest.raises(TrainingStoppedError):
        train(data, out, recipe(), callback=StopAt("step", 1, 1))
    mask = next((data / "masks" / "train").iterdir())
    image = data / "images" / "train" / mask.name
    mask_bytes = mask.read_bytes()
    mask.write_bytes(next(p for p in mask.parent.iterdir() if p != mask).read_bytes())
    with pytest.raises(InputError, match=f"1 images or masks of train have changed .*{mask.stem}"):
        resume(out)
    mask.write_bytes(mask_bytes)
    image_bytes = image.read_bytes()
    with Image.open(image) as opened:
        pixels = np.array(opened)
    pixels[3, 5, 1] ^= 1
    Image.fromarray(pixels).save(image)
    with pytest.raises(InputError, match=f"1 images or masks of train have changed .*{mask.stem}"):
        resume(out)
    mask.unlink()
    image.unlink()
    with pytest.raises(InputError, match=r"1 images of train are missing .*"):
        resume(out)
    mask.write_bytes(mask_bytes)
    image.write_bytes(image_bytes)
    assert resume(out).best_epoch > 0


def test_a_run_resumes_with_a_dataset_that_has_moved(
    uninterrupted: Run, scenes: Path, tmp_path: Path, cli: Any
) -> None:
    data, moved, out = tmp_path / "data", tmp_path / "moved", tmp_path / "run"
    shutil.copytree(scenes, data)
    with pytest.raises(TrainingStoppedError):
        train(data, out, recipe(), callback=StopAt("step", 2, 1))
    data.rename(moved)
    with pytest.raises(InputError, match=f"{data} does not exist: .*`pixelwise train DATA --res"):
        resume(out)
    result = cli("train", moved, "--resume", out)
    assert result.code == 0, result.err
    assert str(moved) in result.out
    assert_same_bundles(out, uninterrupted.folder)
    assert json.loads((out / "data.json").read_text())["root"] == str(moved)
    assert resume(out).best_epoch > 0  # from now on it is found there


def test_a_run_resumes_with_the_same_content_in_other_files(
    uninterrupted: Run, scenes: Path, tmp_path: Path
) -> None:
    copy, out = tmp_path / "copy", tmp_path / "run"
    shutil.copytree(scenes, copy)
    for path in (copy / "images").rglob("*.png"):
        with Image.open(path) as image:
            image.save(path.with_suffix(".bmp"))
        path.unlink()
    with pytest.raises(TrainingStoppedError):
        train(scenes, out, recipe(), callback=StopAt("step", 2, 1))
    resume(out, data=copy)
    assert_same_bundles(out, uninterrupted.folder)


def test_resuming_with_other_threads_is_reported(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    with pytest.raises(TrainingStoppedError):
        train(scenes, out, recipe(), callback=StopAt("epoch", 2))
    threads = torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads + 3)
    resumed = resume(out).facts["resumed"]
    assert f"threads {threads + 3}, before it was {threads}: " in resumed


def test_a_loss_that_is_not_finite_saves_batch_and_state(scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = recipe(**{"optimizer.name": "sgd", "optimizer.learning_rate": 1e30, "epochs": 5})
    with pytest.raises(TrainingError, match=r"not_finite") as error:
        train(scenes, out, settings)
    from pixelwise.weights.tensor_file import read_tensor_file

    tensors, about = read_tensor_file(
        out / "not_finite" / "batch.safetensors", key="pixelwise-batch", kind="batch", remedy=""
    )
    assert all(name in str(error.value) for name in about["names"])
    assert len(about["names"]) == len(tensors["images"]) == len(tensors["labels"])
    _, state = read_tensor_file(
        out / "not_finite" / "state.safetensors", key=KEY, kind="checkpoint", remedy=""
    )
    assert state["progress"]["epoch"] == about["epoch"]


def test_the_learning_rate_schedule_resumes() -> None:
    from pixelwise.models import create_model

    for schedule in ("poly", "cosine", "stages"):
        settings = recipe(**{"optimizer.schedule": schedule})
        model = create_model("fcn32s", num_classes=2, width=1 / 32)
        optimizer = make_optimizer(model, settings)
        rates = make_schedule(optimizer, settings, steps=9)
        for _ in range(4):
            optimizer.step()
            rates.step()
        other = make_optimizer(model, settings)
        again = make_schedule(other, settings, steps=9)
        again.load_state_dict(json.loads(json.dumps(rates.state_dict())))
        other.load_state_dict(optimizer.state_dict())
        for _ in range(5):
            optimizer.step()
            other.step()
            rates.step()
            again.step()
            assert rates.get_last_lr() == again.get_last_lr()


# --- Killed runs

PLACES = ("epoch_end", "before_flush", "after_rename", "bundle", "")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_killed_at_any_moment_resumes_to_the_same_bits(
    workers: int, scenes: Path, tmp_path: Path, processes: Any
) -> None:
    """Kill runs with SIGKILL until KILLS kills have been survived.

    Kills happen at chosen places and at random moments. Random moments alone rarely hit the end of
    an epoch, and once missed a run that skipped an epoch.
    """
    rng = random.Random(workers)
    recipe_toml = recipe(**{"data.workers": workers}).to_toml()

    def attempt(out: Path, place: str, after: float | None) -> bool:
        """Train or resume; return whether the process was killed."""
        process = processes.Process(
            target=killed_run.work, args=(str(scenes), str(out), recipe_toml, place)
        )
        process.start()
        end = math.inf if after is None else time.monotonic() + after
        # Not join(): it would wait for the loading processes, which end seconds later.
        while _is_alive(process.pid):
            if time.monotonic() > end:
                process.kill()
            time.sleep(0.01)
        return not out.with_suffix(".done").exists()

    began = time.monotonic()
    assert not attempt(tmp_path / "uninterrupted", "", None)
    usual = time.monotonic() - began
    kills = round_ = 0
    while kills < KILLS // 2:
        out = tmp_path / f"run{round_}"
        places = [PLACES[(round_ + i) % len(PLACES)] for i in range(3)]
        for place in places:  # the second and third attempt resume
            after = None if place else rng.uniform(0, 1.2 * usual)
            if not attempt(out, place, after):
                break
            kills += 1
        else:
            assert not attempt(out, "", None)
        assert_same_bundles(out, tmp_path / "uninterrupted")
        assert list(out.rglob("*.part")) == []
        round_ += 1


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# --- A full disk


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
def test_a_full_disk_leaves_the_previous_checkpoint_intact(
    scenes: Path, uninterrupted: Run, tmp_path: Path, small_disk: Path
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    (tmp_path / "recipe.toml").write_text(recipe().to_toml())
    out = small_disk / "run"
    command = [sys.executable, "-m", "pixelwise", "train"]
    first = subprocess.run(
        [*command, str(scenes), "--out", str(out), "--recipe", str(tmp_path / "recipe.toml")],
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    assert first.returncode == 1, first.stderr
    (line,) = first.stderr.splitlines()
    assert "No space left on device" in line
    assert f"--resume {out}" in line
    checkpoint, damaged = load_newest_checkpoint(out)
    assert damaged == []
    assert list(out.rglob("*.part")) == []
    subprocess.run(["mount", "-o", "remount,size=30m", str(small_disk)], check=True)
    second = subprocess.run([*command, "--resume", str(out)], capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    assert checkpoint.path.name in second.stdout
    assert (out / "report.html").exists()
    for name in BUNDLES:
        one, other = Bundle.load(out / name), Bundle.load(uninterrupted.folder / name)
        assert all(torch.equal(one.weights[key], other.weights[key]) for key in one.weights)


# --- The command


def test_resume_refuses_other_settings(scenes: Path, tmp_path: Path, cli: Any) -> None:
    for arguments, named in (
        (["--resume", str(tmp_path), "--epochs", "3"], "--epochs"),
        (["--resume", str(tmp_path), "--backbone", "tiny"], "--backbone"),
        (["--resume", str(tmp_path), "--crop", "32x32", "--overwrite"], "--crop, --overwrite"),
        (["--resume", str(tmp_path), "--set", "epochs=3"], "--set"),
    ):
        result = cli("train", *arguments)
        assert result.code == 2
        (line,) = result.err.splitlines()
        assert line.endswith(f"a run resumes with its own settings: omit {named}")
    result = cli("train")
    assert result.code == 2
    assert "--resume RUN" in result.err


def test_an_unfinished_run_of_another_version_is_refused_in_one_line(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    monkeypatch.setattr("pixelwise.training.resume_state.FORMAT", 2)
    train(scenes, out, recipe(epochs=1))
    monkeypatch.undo()
    with pytest.raises(InputError, match=r"has checkpoint format 2, .*train again") as error:
        resume(out)
    assert len(error.value.problems) == 1
    path = list_checkpoints(out / "checkpoints")[-1]
    tensors, header = read_tensor_file(path, key=KEY, kind="checkpoint", remedy="")
    for other in ({"averaged": None}, {"progress": {"position": 3}}):
        changed = {key: value for key, value in {**header, **other}.items() if value is not None}
        write_tensor_file(path, tensors, {**changed, "format": FORMAT}, key=KEY)
        with pytest.raises(InputError, match="written by another version of pixelwise") as error:
            resume(out)
        assert len(error.value.problems) == 1
    saved = out / "recipe.toml"
    saved.write_text(saved.read_text().replace("memory_format =", "layout ="))
    with pytest.raises(InputError, match=r"recipe\.toml: was written by pixelwise 0\.1") as error:
        resume(out)
    assert len(error.value.problems) == 1
