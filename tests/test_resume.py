"""Stopped, killed, short of disk: a run that goes on ends with the bits of an unbroken one."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import killed_run
from pixelwise.data.scenes import write_scenes
from pixelwise.errors import InputError
from pixelwise.recipes.schema import Recipe
from pixelwise.training import Callback, TrainingError, TrainingStoppedError, load_recipe, train
from pixelwise.training import resume as go_on
from pixelwise.training.optimizer import make_optimizer, make_schedule
from pixelwise.training.resume_state import KEY, checkpoints, newest
from pixelwise.training.run_folder import Run
from pixelwise.weights.bundle import Bundle

KILLS = int(os.environ.get("PIXELWISE_KILLS", "20"))
BUNDLES = ("best.safetensors", "last.safetensors")


def recipe(**overrides: Any) -> Recipe:
    """Small, with dropout and all of the augmentation: what is random has to come back."""
    return load_recipe(
        None,
        {
            "model.name": "fcn32s",
            "model.options.width": 1 / 32,
            "model.weights": "none",
            "memory_format": "channels_last",
            "kernels": "plain",
            "device": "cpu",
            "epochs": 3,
            "batch_size": 2,
            "checkpoint_minutes": 0,
            **overrides,
        },
    )


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"), train=6, val=2, height=32, width=48)


@pytest.fixture(scope="module")
def whole(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run that was never stopped."""
    return train(scenes, tmp_path_factory.mktemp("whole") / "run", recipe())


@pytest.fixture(scope="module")
def seldom(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same with checkpoints at an epoch's end only: the recipe is in the bundle."""
    return train(scenes, tmp_path_factory.mktemp("seldom") / "run", recipe(checkpoint_minutes=100))


def assert_same_bundles(one: Path, other: Path) -> None:
    for name in BUNDLES:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


class StopAt(Callback):
    """Asks the run to stop, by a signal, at a place."""

    def __init__(self, *place: Any, number: int = signal.SIGTERM) -> None:
        self.place, self.number = place, number
        self.epoch = 1

    def _at(self, *place: Any) -> None:
        if place == self.place:
            os.kill(os.getpid(), self.number)

    def step(self, *, epoch: int, step: int, steps: int, loss: float, images: int) -> None:
        self.epoch = epoch
        self._at("step", epoch, step)

    def validating(self, done: int, total: int) -> None:
        self._at("validating", self.epoch, done)

    def epoch_ended(self, row: Mapping[str, Any]) -> None:
        self._at("epoch", row["epoch"])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "place",
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
def test_a_stopped_run_goes_on_to_the_same_bits(
    place: tuple[Any, ...], workers: int, scenes: Path, whole: Run, seldom: Run, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    more = {"data.workers": workers} if workers else {}
    chosen = recipe(checkpoint_minutes=100, **more)
    with pytest.raises(TrainingStoppedError, match=f"--resume {out}") as stopped:
        train(scenes, out, chosen, callback=StopAt(*place))
    assert stopped.value.exit_code == 143
    run = go_on(out)
    if workers == 0:
        assert_same_bundles(out, seldom.folder)
    before, after = Bundle.load(whole.last), Bundle.load(run.last)
    assert all(torch.equal(before.weights[name], after.weights[name]) for name in before.weights)
    assert before.scores == after.scores
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines if line["event"] == "epoch"] == [1, 2, 3]
    assert sum(line["event"] == "resume" for line in lines) == 1
    assert [row["epoch"] for row in run.history] == [1, 2, 3]
    assert run.best_epoch == whole.best_epoch
    assert run.evaluation is not None
    assert run.evaluation.image_counts.mean_iou == whole.evaluation.image_counts.mean_iou  # type: ignore[union-attr]


def test_accumulated_gradients_are_not_cut_in_half(scenes: Path, tmp_path: Path) -> None:
    chosen = recipe(batch_size=1, **{"optimizer.accumulate": 4})  # of 6 batches: 4, then 2
    expected = train(scenes, tmp_path / "whole", chosen)
    out = tmp_path / "run"
    with pytest.raises(TrainingStoppedError):
        train(scenes, out, chosen, callback=StopAt("step", 2, 2))
    assert newest(out)[0].progress().step == 4
    go_on(out)
    assert_same_bundles(out, expected.folder)


@pytest.mark.parametrize(
    "settings", [{"optimizer.ema_decay": 0.9}, {"precision": "bf16-mixed"}], ids=str
)
def test_averaged_and_in_mixed_precision_too(
    settings: dict[str, Any], scenes: Path, tmp_path: Path
) -> None:
    chosen = recipe(epochs=2, **settings)
    expected = train(scenes, tmp_path / "whole", chosen)
    out = tmp_path / "run"
    with pytest.raises(TrainingStoppedError):
        train(scenes, out, chosen, callback=StopAt("step", 2, 2))
    go_on(out)
    assert_same_bundles(out, expected.folder)
    assert all(math.isfinite(row["loss"]) for row in expected.history)
    assert all(row["val_mean_iou"] > 0 for row in expected.history)


def test_half_precision_needs_a_gpu(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="precision = '16-mixed': needs a GPU") as error:
        train(scenes, tmp_path / "run", recipe(precision="16-mixed"))
    assert len(error.value.problems) == 1
    assert not (tmp_path / "run").exists()


def test_ctrl_c_ends_with_130_and_a_second_one_at_once(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingStoppedError) as stopped:
        train(scenes, tmp_path / "a", recipe(), callback=StopAt("step", 1, 1, number=signal.SIGINT))
    assert stopped.value.exit_code == 130

    class Impatient(Callback):
        def step(self, **_: Any) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(scenes, tmp_path / "b", recipe(), callback=Impatient())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert len(checkpoints(tmp_path / "b" / "checkpoints")) == 1  # of the start


def test_two_checkpoints_are_kept_and_a_damaged_one_is_passed_over(
    scenes: Path, whole: Run, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.raises(TrainingStoppedError):
        train(scenes, out, recipe(), callback=StopAt("step", 2, 2))
    before, last = checkpoints(out / "checkpoints")
    damaged = bytearray(last.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    last.write_bytes(bytes(damaged))
    run = go_on(out)
    assert before.name in run.facts["resumed"]
    assert f"{last}: is damaged (its SHA-256 differs)" in run.facts["resumed"]
    assert_same_bundles(out, whole.folder)


def test_no_checkpoint_is_whole(scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(scenes, out, recipe(epochs=1))
    for path in checkpoints(out / "checkpoints"):
        path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match=r"step-000000003.*cut off") as error:
        go_on(out)
    assert len(error.value.problems) == 2
    for path in checkpoints(out / "checkpoints"):
        path.unlink()
    with pytest.raises(InputError, match="holds no checkpoint"):
        go_on(out)
    with pytest.raises(InputError, match=r"data\.json: is not there"):
        go_on(tmp_path)


def test_a_finished_run_is_left_as_it_is(scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = train(scenes, out, recipe(epochs=1))
    bundles = {name: (out / name).stat().st_mtime_ns for name in BUNDLES}
    again = go_on(out)
    assert {name: (out / name).stat().st_mtime_ns for name in BUNDLES} == bundles
    assert again.history == first.history
    assert again.best_epoch == 1


def test_other_data_are_refused(scenes: Path, tmp_path: Path) -> None:
    data = write_scenes(tmp_path / "data", train=4, val=1, height=32, width=32)
    out = tmp_path / "run"
    with pytest.raises(TrainingStoppedError):
        train(data, out, recipe(), callback=StopAt("step", 1, 1))
    mask = next((data / "masks" / "train").iterdir())
    image = data / "images" / "train" / mask.name
    kept = mask.read_bytes()
    mask.write_bytes(next(p for p in mask.parent.iterdir() if p != mask).read_bytes())
    with pytest.raises(InputError, match="masks have changed"):
        go_on(out)
    mask.write_bytes(kept)
    picture = image.read_bytes()
    mask.unlink()
    image.unlink()
    with pytest.raises(InputError, match=r"1 images of train are gone .*, as "):
        go_on(out)
    mask.write_bytes(kept)
    image.write_bytes(picture)
    assert go_on(out).best_epoch > 0


def test_a_loss_that_is_not_finite_leaves_batch_and_state(scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    chosen = recipe(**{"optimizer.learning_rate": 1e30, "epochs": 5})
    with pytest.raises(TrainingError, match=r"not_finite") as error:
        train(scenes, out, chosen)
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


def test_the_rate_goes_on_where_it_was() -> None:
    from pixelwise.models import create_model

    for schedule in ("poly", "stages"):
        chosen = recipe(**{"optimizer.schedule": schedule})
        model = create_model("fcn32s", num_classes=2, width=1 / 32)
        optimizer = make_optimizer(model, chosen)
        rates = make_schedule(optimizer, chosen, steps=9)
        for _ in range(4):
            optimizer.step()
            rates.step()
        other = make_optimizer(model, chosen)
        again = make_schedule(other, chosen, steps=9)
        again.load_state_dict(json.loads(json.dumps(rates.state_dict())))
        other.load_state_dict(optimizer.state_dict())
        for _ in range(5):
            optimizer.step()
            other.step()
            rates.step()
            again.step()
            assert rates.get_last_lr() == again.get_last_lr()


# --- Killed

PLACES = ("epoch_end", "before_flush", "after_rename", "bundle", "")


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_at_any_moment_it_ends_with_the_same_bits(
    workers: int, scenes: Path, tmp_path: Path, processes: Any
) -> None:
    """kill -9, again and again, until as many runs have come through as there were kills to make.

    At forced places as well as at random moments: random ones alone would hardly meet an epoch's
    end, and once let pass a run that skipped an epoch.
    """
    rng = random.Random(workers)
    chosen = recipe(**{"data.workers": workers}).to_toml()

    def attempt(out: Path, place: str, after: float | None) -> bool:
        """Whether it was killed."""
        process = processes.Process(
            target=killed_run.work, args=(str(scenes), str(out), chosen, place)
        )
        process.start()
        end = math.inf if after is None else time.monotonic() + after
        # Not join: loading processes, which notice the end seconds later, keep that waiting.
        while _lives(process.pid):
            if time.monotonic() > end:
                process.kill()
            time.sleep(0.01)
        return not out.with_suffix(".done").exists()

    began = time.monotonic()
    assert not attempt(tmp_path / "whole", "", None)
    usual = time.monotonic() - began
    kills = round_ = 0
    while kills < KILLS // 2:
        out = tmp_path / f"run{round_}"
        places = [PLACES[(round_ + i) % len(PLACES)] for i in range(3)]
        for place in places:  # the second and third are resumed runs
            after = None if place else rng.uniform(0, 1.2 * usual)
            if not attempt(out, place, after):
                break
            kills += 1
        else:
            assert not attempt(out, "", None)
        assert_same_bundles(out, tmp_path / "whole")
        assert list(out.rglob("*.part")) == []
        round_ += 1


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# --- A full disk


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
def test_a_full_disk_leaves_the_checkpoint_before(
    scenes: Path, whole: Run, tmp_path: Path, small_disk: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "recipe.toml").write_text(recipe().to_toml())
    out = small_disk / "run"
    command = [sys.executable, "-m", "pixelwise", "train"]
    first = subprocess.run(
        [*command, str(scenes), "--out", str(out), "--recipe", str(tmp_path / "recipe.toml")],
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": str(elsewhere)},
    )
    assert first.returncode == 1, first.stderr
    (line,) = first.stderr.splitlines()
    assert "No space left on device" in line
    assert f"--resume {out}" in line
    checkpoint, damaged = newest(out)
    assert damaged == []
    assert list(out.rglob("*.part")) == []
    subprocess.run(["mount", "-o", "remount,size=30m", str(small_disk)], check=True)
    second = subprocess.run([*command, "--resume", str(out)], capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    assert checkpoint.path.name in second.stdout
    assert (out / "report.html").exists()
    for name in BUNDLES:
        one, other = Bundle.load(out / name), Bundle.load(whole.folder / name)
        assert all(torch.equal(one.weights[key], other.weights[key]) for key in one.weights)


# --- The command


def test_resume_takes_nothing_else(scenes: Path, tmp_path: Path, cli: Any) -> None:
    for arguments in (
        [str(scenes), "--resume", str(tmp_path)],
        ["--resume", str(tmp_path), "--epochs", "3"],
    ):
        result = cli("train", *arguments)
        assert result.code == 2
        assert "give no others" in result.err
    result = cli("train")
    assert result.code == 2
    assert "--resume RUN" in result.err
