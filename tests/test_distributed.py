"""A run in several processes is the run of one: its losses, its scores, its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distributed_run import by_slurm, one_pass, run_training, together
from pixelwise.data.dataset import open_dataset
from pixelwise.data.scenes import write_scenes
from pixelwise.distributed.process_rank import (
    LOST,
    ProcessRank,
    check_process_rank,
    find_process_rank,
)
from pixelwise.errors import InputError
from pixelwise.evaluation import evaluate, merge_shards
from pixelwise.evaluation.image_counts import load_image_counts
from pixelwise.inference import Predictor
from pixelwise.training import launcher, load_recipe, plan_training
from pixelwise.training.loading import BatchOrder
from pixelwise.weights.bundle import Bundle

SETTINGS = {
    "model.name": "little",
    "model.weights": "none",
    "memory_format": "channels_last",
    "kernels": "plain",
    "device": "cpu",
    "epochs": 7,
    "batch_size": 4,
    "checkpoint_minutes": 100,
    "optimizer.learning_rate": 1e-3,
    "augmentation.crop": [64, 64],
}
"""Crops that reach over the image are void. Of 11 images there are batches of 4, 4 and 3."""


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"), train=11, val=3, height=48, width=64)


@pytest.fixture(scope="module")
def alone(
    scenes: Path, tmp_path_factory: pytest.TempPathFactory, processes: Any
) -> tuple[Path, Any]:
    """The run in one process: its folder, and what `run_training` says of it."""
    out = tmp_path_factory.mktemp("alone") / "run"
    (report,) = together(processes, 1, run_training, scenes, out, SETTINGS)
    return out, report.value


def assert_close(one: Path, other: Path) -> None:
    """The last bundles' weights, to rounding."""
    before, after = (Bundle.load(run / "last.safetensors").weights for run in (one, other))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


# --- Equal to one process


def test_two_processes_train_as_one(
    scenes: Path, alone: tuple[Path, Any], tmp_path: Path, processes: Any
) -> None:
    reports = together(processes, 2, run_training, scenes, tmp_path / "run", SETTINGS)
    assert [report.exit_code for report in reports] == [0, 0]
    out, (losses, images, rows) = alone
    shared, shared_images, shared_rows = reports[0].value
    assert len(losses) == 21
    np.testing.assert_allclose(shared, losses, rtol=1e-5)
    assert shared_images == images
    for row, shared_row in zip(rows, shared_rows, strict=True):
        assert shared_row["val_mean_iou"] == row["val_mean_iou"]
    assert_close(out, tmp_path / "run")
    one, other = (load_image_counts(run / "val_images.safetensors") for run in (out, tmp_path / "run"))
    assert other.image_counts.names == one.image_counts.names
    np.testing.assert_array_equal(other.image_counts.counts, one.image_counts.counts)
    assert reports[1].value[0] == []  # process 0 alone tells
    start = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert start["processes"] == 2


@pytest.mark.parametrize(
    "fault", ["batch norm by process", "mean by process", "dropout by process"]
)
def test_what_is_left_to_each_process_would_be_noticed(
    fault: str, scenes: Path, alone: tuple[Path, Any], tmp_path: Path, processes: Any
) -> None:
    settings = {**SETTINGS, "epochs": 1}
    reports = together(processes, 2, run_training, scenes, tmp_path / "run", settings, fault)
    losses = np.array(alone[1][0][:3])
    assert np.abs(np.array(reports[0].value[0]) / losses - 1).max() > 1e-4


@pytest.mark.parametrize(
    ("count", "images"),
    [(2, 5), (3, 2)],  # 3, 2: one has no image at all
)
def test_gradients_are_those_of_the_whole_batch_for_every_loss(
    count: int, images: int, processes: Any
) -> None:
    loss = "cross_entropy+focal+ohem+dice+lovasz_softmax+0.1*boundary"
    work = (one_pass, loss, images, "deeplab_v3plus", {"backbone": "tiny"})
    expected = together(processes, 1, *work)[0].value
    for report in together(processes, count, *work):
        for name, value in expected.items():
            scale = np.abs(value).max()
            np.testing.assert_allclose(
                report.value[name], value, rtol=1e-9, atol=1e-9 * scale, err_msg=name
            )


def test_gradients_that_are_accumulated_are_added_up_at_the_end(
    scenes: Path, tmp_path: Path, processes: Any
) -> None:
    settings = {**SETTINGS, "epochs": 2, "batch_size": 2, "optimizer.accumulate": 4}
    losses = [
        together(processes, count, run_training, scenes, tmp_path / str(count), settings)[0].value
        for count in (1, 2)
    ]
    np.testing.assert_allclose(losses[1][0], losses[0][0], rtol=1e-5)


def test_slurm_starts_the_processes(
    scenes: Path, alone: tuple[Path, Any], tmp_path: Path, processes: Any
) -> None:
    work = (run_training, scenes, tmp_path / "run", {**SETTINGS, "epochs": 1})
    reports = together(processes, 2, *work, started_by=by_slurm)
    assert [report.exit_code for report in reports] == [0, 0], reports
    assert reports[0].value[0][0] == pytest.approx(alone[1][0][0], rel=1e-5)
    assert reports[1].value[0] == []


def test_scores_of_parts_make_those_of_the_whole(scenes: Path, alone: tuple[Path, Any]) -> None:
    predictor = Predictor.load(alone[0] / "last.safetensors", runtime="torch", device="cpu")
    data = open_dataset(scenes, splits=("train",))
    whole = evaluate(predictor, data, "train")
    for count in (2, 3, 12):  # more parts than images
        calls: list[tuple[int, int]] = []

        def progress(done: int, total: int, calls: list[tuple[int, int]] = calls) -> None:
            calls.append((done, total))

        parts = [
            evaluate(predictor, data, "train", shard=(rank, count), progress=progress)
            for rank in range(count)
        ]
        rounds = calls[: len(calls) // count]
        assert calls == rounds * count  # as often in each
        assert rounds[-1] == (11, 11)
        found = merge_shards(parts)
        np.testing.assert_array_equal(found.matrix.counts, whole.matrix.counts)
        np.testing.assert_array_equal(found.image_counts.counts, whole.image_counts.counts)
        assert found.image_counts.names == whole.image_counts.names


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 4))
def test_the_shares_are_the_batch(count: int, batch_size: int, processes: int) -> None:
    whole = BatchOrder(count, batch_size=batch_size, seed=1)
    orders = [
        BatchOrder(count, batch_size=batch_size, seed=1, rank=rank, processes=processes)
        for rank in range(processes)
    ]
    for order in (whole, *orders):
        order.begin(2)
    for step, (batch, *parts) in enumerate(zip(whole, *orders, strict=True), start=1):
        shares = [order.share(step) for order in orders]
        assert {share.images for share in shares} == {len(batch)}
        cut = [part[: share.size] for part, share in zip(parts, shares, strict=True)]
        assert list(chain(*cut)) == batch
        assert max(map(len, cut)) - min(map(len, cut)) <= 1
        assert all(parts)  # there is something to load, also for one that has no image
        assert [share.size for share in shares] == shares[0].sizes == [len(part) for part in cut]


# --- Stopped, and gone on with by another number


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (2, 2)])
def test_a_run_goes_on_with_another_number_of_processes(
    before: int,
    after: int,
    scenes: Path,
    alone: tuple[Path, Any],
    tmp_path: Path,
    processes: Any,
) -> None:
    out = tmp_path / "run"
    fault = f"signal {before - 1}"  # one alone gets it
    stopped = together(processes, before, run_training, scenes, out, SETTINGS, fault, 5)
    assert [report.exit_code for report in stopped] == [143] * before
    assert "in epoch 2 after step 2" in stopped[0].problems[0]
    assert [report.problems for report in stopped[1:]] == [()] * (before - 1)
    ended = together(processes, after, run_training, scenes, out, SETTINGS)
    assert [report.exit_code for report in ended] == [0] * after
    losses, _, rows = ended[0].value
    np.testing.assert_allclose(losses, alone[1][0][5:], rtol=1e-5)
    assert [row["epoch"] for row in rows] == list(range(1, 8))
    assert_close(alone[0], out)


def test_the_same_number_of_processes_ends_with_the_same_bits(
    scenes: Path, tmp_path: Path, processes: Any
) -> None:
    settings = {**SETTINGS, "epochs": 2, "optimizer.ema_decay": 0.9}
    whole, out = tmp_path / "whole", tmp_path / "run"
    together(processes, 2, run_training, scenes, whole, settings)
    together(processes, 2, run_training, scenes, out, settings, "signal 0", 2)
    together(processes, 2, run_training, scenes, out, settings)
    for name in ("best.safetensors", "last.safetensors"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()


# --- Faults


@pytest.mark.parametrize("rank", [0, 1])
def test_a_fault_in_one_process_ends_all_with_its_one_line(
    rank: int, scenes: Path, tmp_path: Path, processes: Any
) -> None:
    fault = f"bad image {rank}"
    reports = together(processes, 2, run_training, scenes, tmp_path / "run", SETTINGS, fault, 2)
    at_fault, other = reports[rank], reports[1 - rank]
    assert (at_fault.exit_code, at_fault.problems) == (2, ("b.png: is damaged",))
    if rank == 0:  # with it the place has gone in which the other could have read of it
        assert other.exit_code == LOST
        assert "another process of the run has ended" in other.problems[0]
        assert f"--resume {tmp_path / 'run'}" in other.problems[0]
    else:
        assert (other.exit_code, other.problems) == (2, ())


def test_a_fault_that_all_find_is_told_by_one(scenes: Path, tmp_path: Path, processes: Any) -> None:
    (tmp_path / "file").touch()
    for settings, out, said in (
        (
            {**SETTINGS, "batch_size": 3},
            "run",
            "batch_size = 3: does not divide by the 2",
        ),
        ({**SETTINGS, "augmentation.crop": "image", "batch_size": 1}, "run", "batch_size = 1"),
        ({**SETTINGS, "loss.class_weights": [1, 2]}, "run", "loss.class_weights has 2 numbers"),
        (SETTINGS, "file", "is a file"),
    ):
        reports = together(processes, 2, run_training, scenes, tmp_path / out, settings)
        assert [report.exit_code for report in reports] == [2, 2]
        assert said in reports[0].problems[0]
        assert reports[1].problems == ()


def test_a_loss_that_is_not_finite_ends_all_and_keeps_the_whole_batch(
    scenes: Path, tmp_path: Path, processes: Any
) -> None:
    from pixelwise.weights.tensor_file import read_tensor_file

    out = tmp_path / "run"
    settings = {**SETTINGS, "optimizer.learning_rate": 1e30}
    reports = together(processes, 2, run_training, scenes, out, settings)
    assert [report.exit_code for report in reports] == [1, 1]
    assert "not_finite" in reports[0].problems[0]
    assert reports[1].problems == ()
    path = out / "not_finite" / "batch.safetensors"
    tensors, about = read_tensor_file(path, key="pixelwise-batch", kind="batch", remedy="")
    assert len(tensors["images"]) == len(tensors["labels"]) == len(about["names"]) >= 3


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({}, None),
        ({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}, None),
        (
            {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"},
            ProcessRank(5, 8, 1, 4),
        ),
        (
            {
                "SLURM_PROCID": "3",
                "SLURM_LOCALID": "1",
                "SLURM_STEP_NUM_TASKS": "4",
                "SLURM_STEP_NUM_NODES": "2",
            },
            ProcessRank(3, 4, 1, 2, slurm=True),
        ),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, None),  # a batch script, not begun by srun
    ],
)
def test_a_process_finds_its_place_in_the_environment(
    variables: dict[str, str], place: ProcessRank | None
) -> None:
    assert find_process_rank(variables) == place
    if place is not None:
        assert place.nodes == 2
        check_process_rank(place, devices=None, nodes=2)
        with pytest.raises(InputError, match="--devices 7: the processes were started with"):
            check_process_rank(place, devices=7, nodes=None)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"RANK": "0", "WORLD_SIZE": "2"}, "LOCAL_RANK is 'not set'"),
        (
            {"RANK": "x", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"},
            "RANK is 'x'",
        ),
        (
            {"RANK": "0", "WORLD_SIZE": "3", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"},
            "start as many on each",
        ),
    ],
)
def test_an_environment_at_fault_is_refused(variables: dict[str, str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        find_process_rank(variables)


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        (("exit(0)", "exit(0)"), (0, 0)),
        (("exit(75)", "exit(130)"), (130, 1)),  # 75: has found the other gone
        (("exit(1)", "kill(getpid(), 9)"), (-9, 1)),
        (("exit(2)", "sleep(60)"), (2, 0)),  # the other does not end by itself
        (("sleep(60)", "exit(2)"), (2, 1)),
    ],
)
def test_the_process_at_fault_gives_the_exit_code(
    ends: tuple[str, ...], expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "PATIENCE", 0.5)
    begin = "from os import getpid, kill; from time import sleep; "
    children = [subprocess.Popen([sys.executable, "-c", begin + end]) for end in ends]
    assert launcher.wait_for(children) == expected


def test_the_batch_that_is_planned_divides_by_the_processes(scenes: Path, tmp_path: Path) -> None:
    settings = {key: value for key, value in SETTINGS.items() if key != "batch_size"}
    for count, batch in ((1, 2), (2, 2), (3, 3)):
        found = plan_training(scenes, tmp_path / "run", load_recipe(None, settings), count=count)
        assert found.recipe.batch_size == batch


# --- The command


COMMAND = [sys.executable, "-m", "pixelwise", "train"]


def write_recipe(folder: Path, **overrides: Any) -> Path:
    path = folder / "recipe.toml"
    network = {"model.name": "fcn32s", "model.options.width": 1 / 32}  # the command knows it
    path.write_text(load_recipe(None, {**SETTINGS, **network, **overrides}).to_toml())
    return path


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc")
def test_a_process_that_is_killed_ends_the_others_and_the_run_goes_on(
    scenes: Path, tmp_path: Path, processes: Any
) -> None:
    out = tmp_path / "run"
    recipe = write_recipe(tmp_path, epochs=1000)
    command = subprocess.Popen(
        [*COMMAND, str(scenes), "--out", str(out), "--recipe", str(recipe), "--devices", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while not (out / "last.safetensors").exists():  # amid the second epoch
            assert command.poll() is None, command.communicate()
            time.sleep(0.05)
        both = children(command.pid)
        assert len(both) == 2
        os.kill(both[1], signal.SIGKILL)
        _, said = command.communicate(timeout=60)
    finally:
        command.kill()
    assert command.returncode == 1
    (line,) = said.splitlines()
    assert "process 1 of 2 was killed (SIGKILL)" in line
    assert f"pixelwise train --resume {out}" in line
    assert not any(Path(f"/proc/{pid}").exists() for pid in both)
    (out / "recipe.toml").write_text(load_recipe(out / "recipe.toml", {"epochs": 3}).to_toml())
    (report,) = together(processes, 1, run_training, scenes, out, SETTINGS)
    assert report.value[2][-1]["epoch"] >= 1


@pytest.mark.slow
def test_torchrun_starts_the_processes(scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    recipe = write_recipe(tmp_path, epochs=1)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    torchrun += ["--master-port", "0", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    done = subprocess.run(
        [*torchrun, *COMMAND[1:], str(scenes), "--out", str(out), "--recipe", str(recipe)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch   1/1") == 1
    start = json.loads((out / "metrics.jsonl").read_text().splitlines()[0])
    assert start["processes"] == 2


def test_machines_that_cannot_find_each_other_are_told_how(tmp_path: Path, cli: Any) -> None:
    result = cli("train", tmp_path, "--nodes", "2")
    assert result.code == 2
    (line,) = result.err.splitlines()
    assert "MASTER_ADDR, MASTER_PORT, NODE_RANK not set" in line
