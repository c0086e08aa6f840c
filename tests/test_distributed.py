"""A run in several processes gives the losses, scores and errors of a single-process run."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from distributed_run import by_slurm, one_pass, run_processes, run_training
from pixelwise.data.dataset import open_dataset
from pixelwise.data.scenes import write_scenes
from pixelwise.distributed.environment import (
    LOST,
    DistributedEnv,
    check_distributed_env,
    read_distributed_env,
)
from pixelwise.errors import InputError
from pixelwise.evaluation import evaluate, merge_shards
from pixelwise.evaluation.image_counts import load_image_counts
from pixelwise.inference import Predictor
from pixelwise.recipes.loss_terms import LOSS_NAMES
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
"""Crops exceed the images, and the padding is ignored. 11 images give batches of 4, 4 and 3."""


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"), train=11, val=3, height=48, width=64)


@pytest.fixture(scope="module")
def single(
    scenes: Path, tmp_path_factory: pytest.TempPathFactory, processes: Any
) -> tuple[Path, Any]:
    """A single-process run: its folder, and what `run_training` returns."""
    out = tmp_path_factory.mktemp("single") / "run"
    (report,) = run_processes(processes, 1, run_training, scenes, out, SETTINGS)
    return out, report.value


def assert_close(one: Path, other: Path) -> None:
    """Compare the weights of the last bundles up to rounding."""
    before, after = (Bundle.load(run / "last.safetensors").weights for run in (one, other))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


# --- Equal to a single process


def test_two_processes_match_a_single_process(
    scenes: Path, single: tuple[Path, Any], tmp_path: Path, processes: Any
) -> None:
    reports = run_processes(processes, 2, run_training, scenes, tmp_path / "run", SETTINGS)
    assert [report.exit_code for report in reports] == [0, 0]
    out, (losses, images, rows) = single
    shared, shared_images, shared_rows = reports[0].value
    assert len(losses) == 21
    np.testing.assert_allclose(shared, losses, rtol=1e-5)
    assert shared_images == images
    for row, shared_row in zip(rows, shared_rows, strict=True):
        assert shared_row["val_mean_iou"] == row["val_mean_iou"]
    assert_close(out, tmp_path / "run")
    one, other = (
        load_image_counts(run / "val_images.safetensors") for run in (out, tmp_path / "run")
    )
    assert other.image_counts.names == one.image_counts.names
    np.testing.assert_array_equal(other.image_counts.counts, one.image_counts.counts)
    assert reports[1].value[0] == []  # only rank 0 calls the callback
    start = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert start["processes"] == 2


@pytest.mark.parametrize(
    "fault", ["batch norm per process", "mean per process", "dropout per process"]
)
def test_an_operation_that_ignores_the_other_processes_would_be_noticed(
    fault: str, scenes: Path, single: tuple[Path, Any], tmp_path: Path, processes: Any
) -> None:
    settings = {**SETTINGS, "epochs": 1}
    reports = run_processes(processes, 2, run_training, scenes, tmp_path / "run", settings, fault)
    # The first losses: later ones also differ because the learning rate depends on the epochs.
    assert abs(reports[0].value[0][0] / single[1][0][0] - 1) > 1e-4


@pytest.mark.parametrize(
    ("count", "images"),
    [(2, 5), (3, 2)],  # 3, 2: one process has no image
)
def test_gradients_equal_those_of_the_whole_batch_for_every_loss(
    count: int, images: int, processes: Any
) -> None:
    # The weight tests a scaled term.
    loss = "+".join("0.1*boundary" if name == "boundary" else name for name in LOSS_NAMES)
    work = (one_pass, loss, images, "deeplab_v3plus", {"backbone": "tiny"})
    expected = run_processes(processes, 1, *work)[0].value
    for report in run_processes(processes, count, *work):
        for name, value in expected.items():
            scale = np.abs(value).max()
            np.testing.assert_allclose(
                report.value[name], value, rtol=1e-9, atol=1e-9 * scale, err_msg=name
            )


def test_accumulated_gradients_are_reduced_before_the_update(
    scenes: Path, tmp_path: Path, processes: Any
) -> None:
    settings = {**SETTINGS, "epochs": 2, "batch_size": 2, "optimizer.accumulate": 4}
    losses = [
        run_processes(processes, count, run_training, scenes, tmp_path / str(count), settings)[
            0
        ].value
        for count in (1, 2)
    ]
    np.testing.assert_allclose(losses[1][0], losses[0][0], rtol=1e-5)


def test_processes_can_be_started_by_slurm(
    scenes: Path, single: tuple[Path, Any], tmp_path: Path, processes: Any
) -> None:
    work = (run_training, scenes, tmp_path / "run", {**SETTINGS, "epochs": 1})
    reports = run_processes(processes, 2, *work, started_by=by_slurm)
    assert [report.exit_code for report in reports] == [0, 0], reports
    assert reports[0].value[0][0] == pytest.approx(single[1][0][0], rel=1e-5)
    assert reports[1].value[0] == []


def test_merged_scores_of_parts_equal_those_of_the_split(
    scenes: Path, single: tuple[Path, Any]
) -> None:
    predictor = Predictor.load(single[0] / "last.safetensors", runtime="torch", device="cpu")
    data = open_dataset(scenes, splits=("train",))
    expected = evaluate(predictor, data, "train")
    for count in (2, 3, 12):  # more processes than images
        calls: list[tuple[int, int]] = []

        def progress(done: int, total: int, calls: list[tuple[int, int]] = calls) -> None:
            calls.append((done, total))

        parts = [
            evaluate(predictor, data, "train", shard=(rank, count), progress=progress)
            for rank in range(count)
        ]
        rounds = calls[: len(calls) // count]
        assert calls == rounds * count  # the same number of calls for each part
        assert rounds[-1] == (11, 11)
        merged = merge_shards(parts)
        np.testing.assert_array_equal(merged.matrix.counts, expected.matrix.counts)
        np.testing.assert_array_equal(merged.image_counts.counts, expected.image_counts.counts)
        assert merged.image_counts.names == expected.image_counts.names


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 4))
def test_the_shards_make_up_the_batch(count: int, batch_size: int, processes: int) -> None:
    single = BatchOrder(count, batch_size=batch_size, seed=1)
    orders = [
        BatchOrder(count, batch_size=batch_size, seed=1, rank=rank, world_size=processes)
        for rank in range(processes)
    ]
    for order in (single, *orders):
        order.begin(2)
    for step, (batch, *parts) in enumerate(zip(single, *orders, strict=True), start=1):
        shards = [order.shard(step) for order in orders]
        assert {shard.images for shard in shards} == {len(batch)}
        cut = [part[: shard.size] for part, shard in zip(parts, shards, strict=True)]
        assert list(chain(*cut)) == batch
        assert max(map(len, cut)) - min(map(len, cut)) <= 1
        assert all(parts)  # also a process without images has something to load
        assert [shard.size for shard in shards] == shards[0].sizes == [len(part) for part in cut]


# --- Stopped and resumed


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (2, 2)])
def test_a_run_resumes_with_another_number_of_processes(
    before: int, after: int, scenes: Path, single: tuple[Path, Any], tmp_path: Path, processes: Any
) -> None:
    out = tmp_path / "run"
    fault = f"signal {before - 1}"  # only one process receives it
    stopped = run_processes(processes, before, run_training, scenes, out, SETTINGS, fault, 5)
    assert [report.exit_code for report in stopped] == [143] * before
    assert "in epoch 2 after step 2" in stopped[0].problems[0]
    assert [report.problems for report in stopped[1:]] == [()] * (before - 1)
    ended = run_processes(processes, after, run_training, scenes, out, SETTINGS)
    assert [report.exit_code for report in ended] == [0] * after
    losses, _, rows = ended[0].value
    np.testing.assert_allclose(losses, single[1][0][5:], rtol=1e-5)
    assert [row["epoch"] for row in rows] == list(range(1, 8))
    assert_close(single[0], out)


@pytest.mark.parametrize("count", [2, 3])  # three numbers have several orders of addition
def test_the_same_number_of_processes_resumes_to_the_same_bits(
    count: int, scenes: Path, tmp_path: Path, processes: Any
) -> None:
    settings = {**SETTINGS, "batch_size": 2 * count, "epochs": 2, "optimizer.ema_decay": 0.9}
    uninterrupted, out = tmp_path / "uninterrupted", tmp_path / "run"
    for folder, fault, exit_code in ((uninterrupted, "", 0), (out, "signal 0", 143), (out, "", 0)):
        work = (run_training, scenes, folder, settings, fault, 1)
        reports = run_processes(processes, count, *work)
        assert [report.exit_code for report in reports] == [exit_code] * count, reports
    for name in ("best.safetensors", "last.safetensors"):
        assert (out / name).read_bytes() == (uninterrupted / name).read_bytes()


# --- Errors


@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_in_one_process_ends_all_with_one_line(
    rank: int, scenes: Path, tmp_path: Path, processes: Any
) -> None:
    fault = f"bad image {rank}"
    reports = run_processes(
        processes, 2, run_training, scenes, tmp_path / "run", SETTINGS, fault, 2
    )
    at_fault, other = reports[rank], reports[1 - rank]
    assert (at_fault.exit_code, at_fault.problems) == (2, ("b.png: is damaged",))
    if rank == 0:  # with rank 0 the store ends in which the other would read the exit code
        assert other.exit_code == LOST
        assert "another process of the run has ended" in other.problems[0]
        assert f"--resume {tmp_path / 'run'}" in other.problems[0]
    else:
        assert (other.exit_code, other.problems) == (2, ())


def test_an_error_of_all_processes_is_reported_once(
    scenes: Path, tmp_path: Path, processes: Any
) -> None:
    (tmp_path / "file").touch()
    for settings, out, message in (
        ({**SETTINGS, "batch_size": 3}, "run", "batch_size = 3: is not divisible by the 2"),
        ({**SETTINGS, "augmentation.crop": "image", "batch_size": 1}, "run", "batch_size = 1"),
        ({**SETTINGS, "loss.class_weights": [1, 2]}, "run", "loss.class_weights has 2 numbers"),
        (SETTINGS, "file", "is a file"),
    ):
        reports = run_processes(processes, 2, run_training, scenes, tmp_path / out, settings)
        assert [report.exit_code for report in reports] == [2, 2]
        assert message in reports[0].problems[0]
        assert reports[1].problems == ()


def test_a_loss_that_is_not_finite_ends_every_process_and_saves_the_whole_batch(
    scenes: Path, tmp_path: Path, processes: Any
) -> None:
    from pixelwise.weights.tensor_file import read_tensor_file

    out = tmp_path / "run"
    settings = {**SETTINGS, "optimizer.name": "sgd", "optimizer.learning_rate": 1e30}
    reports = run_processes(processes, 2, run_training, scenes, out, settings)
    assert [report.exit_code for report in reports] == [1, 1]
    assert "not_finite" in reports[0].problems[0]
    assert reports[1].problems == ()
    path = out / "not_finite" / "batch.safetensors"
    tensors, about = read_tensor_file(path, key="pixelwise-batch", kind="batch", remedy="")
    assert len(tensors["images"]) == len(tensors["labels"]) == len(about["names"]) >= 3


@pytest.mark.parametrize(
    ("variables", "distributed_env"),
    [
        ({}, None),
        ({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}, None),
        (
            {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"},
            DistributedEnv(5, 8, 1, 4),
        ),
        (
            {
                "SLURM_PROCID": "3",
                "SLURM_LOCALID": "1",
                "SLURM_STEP_NUM_TASKS": "4",
                "SLURM_STEP_NUM_NODES": "2",
            },
            DistributedEnv(3, 4, 1, 2, slurm=True),
        ),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, None),  # a batch script without srun
    ],
)
def test_a_process_finds_its_rank_in_the_environment(
    variables: dict[str, str], distributed_env: DistributedEnv | None
) -> None:
    assert read_distributed_env(variables) == distributed_env
    if distributed_env is not None:
        assert distributed_env.nodes == 2
        check_distributed_env(distributed_env, devices=None, nodes=2)
        with pytest.raises(InputError, match="--devices 7: the processes were started with"):
            check_distributed_env(distributed_env, devices=7, nodes=None)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "0", "WORLD_SIZE": "2"}, "LOCAL_RANK is 'not set'"),
        (
            {"RANK": "x", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"},
            "RANK is 'x'",
        ),
        (
            {"RANK": "0", "WORLD_SIZE": "3", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"},
            "start the same number of processes on each",
        ),
    ],
)
def test_an_invalid_environment_is_refused(variables: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_distributed_env(variables)


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        (("exit(0)", "exit(0)"), (0, 0)),
        (("exit(75)", "exit(130)"), (130, 1)),  # 75: lost the connection to the other
        (("exit(1)", "kill(getpid(), 9)"), (-9, 1)),
        (("exit(2)", "sleep(60)"), (2, 0)),  # the other does not end on its own
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


def test_the_planned_batch_size_is_divisible_by_the_processes(scenes: Path, tmp_path: Path) -> None:
    settings = {key: value for key, value in SETTINGS.items() if key != "batch_size"}
    for count, batch in ((1, 2), (2, 2), (3, 3)):
        found = plan_training(
            scenes, tmp_path / "run", load_recipe(None, settings), processes=count
        )
        assert found.recipe.batch_size == batch


# --- The command


COMMAND = [sys.executable, "-m", "pixelwise", "train"]


def write_recipe(folder: Path, **overrides: Any) -> Path:
    path = folder / "recipe.toml"
    network = {
        "model.name": "fcn32s",
        "model.options.width": 1 / 32,
    }  # a network that the command can name
    path.write_text(load_recipe(None, {**SETTINGS, **network, **overrides}).to_toml())
    return path


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc")
def test_a_killed_process_ends_the_others_and_the_run_can_be_resumed(
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
        while not (out / "last.safetensors").exists():  # during the second epoch
            assert command.poll() is None, command.communicate()
            time.sleep(0.05)
        both = children(command.pid)
        assert len(both) == 2
        os.kill(both[1], signal.SIGKILL)
        _, stderr = command.communicate(timeout=60)
    finally:
        command.kill()
    assert command.returncode == 1
    (line,) = stderr.splitlines()
    assert "process 1 of 2 was killed (SIGKILL)" in line
    assert f"pixelwise train --resume {out}" in line
    assert not any(Path(f"/proc/{pid}").exists() for pid in both)
    (out / "recipe.toml").write_text(load_recipe(out / "recipe.toml", {"epochs": 3}).to_toml())
    (report,) = run_processes(processes, 1, run_training, scenes, out, SETTINGS)
    assert report.value[2][-1]["epoch"] >= 1


@pytest.mark.slow
def test_processes_can_be_started_by_torchrun(scenes: Path, tmp_path: Path) -> None:
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


SRUN = """#!/bin/sh
# Two tasks on one machine.
export SLURM_STEP_NUM_TASKS=2 SLURM_STEP_NUM_NODES=1 SLURM_NTASKS=2 SLURM_NTASKS_PER_NODE=2
export SLURM_NNODES=1 SLURM_NODEID=0 SLURM_JOB_ID={job} SLURM_NODELIST=localhost
SLURM_PROCID=1 SLURM_LOCALID=1 "$@" &
SLURM_PROCID=0 SLURM_LOCALID=0 "$@" && wait $!
"""


def documented(language: str, containing: str) -> str:
    """The block of docs/distributed.md in a language that contains a text."""
    page = Path(__file__).parent.parent / "docs/distributed.md"
    blocks = re.findall(r"```(\w+)\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    (code,) = [code for name, code in blocks if name == language and containing in code]
    return str(code)


@pytest.fixture
def programs(scenes: Path, tmp_path: Path) -> Path:
    """A working folder with `photos`, and the programs that the documentation calls."""
    (tmp_path / "photos").symlink_to(scenes)
    recipe = write_recipe(tmp_path, epochs=1)
    settings = f'case "$*" in *--resume*) ;; *) set -- "$@" --device cpu --recipe {recipe};; esac'
    run = f"{shlex.quote(sys.executable)} -m"
    folder = tmp_path / "bin"
    folder.mkdir()
    scripts = {
        "pixelwise": f'{settings}\nexec {run} pixelwise "$@"',
        "torchrun": f'{settings}\nexec {run} torch.distributed.run "$@"',
        "srun": SRUN.format(job=10_000 + os.getpid() % 10_000),
    }
    for name, text in scripts.items():
        (folder / name).write_text(text if text.startswith("#!") else f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    return tmp_path


def run_shell(folder: Path, code: str, **variables: str) -> subprocess.Popen[str]:
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return subprocess.Popen(
        ["sh", "-c", code],
        cwd=folder,
        env=os.environ | {"PATH": path} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def check_run(run: Path, *commands: subprocess.Popen[str]) -> None:
    for command in commands:
        _, stderr = command.communicate(timeout=120)
        assert command.returncode == 0, stderr
    start = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    assert start["processes"] == 2
    assert (run / "best.safetensors").is_file()


@pytest.mark.slow
def test_the_documented_torchrun_command_trains_in_two_processes(programs: Path) -> None:
    code = documented("sh", "torchrun")
    check_run(programs / "runs/torchrun", run_shell(programs, code))


@pytest.mark.slow
def test_the_documented_slurm_script_trains_in_two_tasks_and_resumes(programs: Path) -> None:
    code = documented("bash", "srun")
    check_run(programs / "runs/slurm", run_shell(programs, code))
    again = run_shell(programs, code)
    assert again.communicate(timeout=120)[0].count("finished") == 1
    assert again.returncode == 0


@pytest.mark.slow
def test_the_documented_kubernetes_job_trains_in_two_pods(programs: Path) -> None:
    """The training operator gives each pod these variables."""
    job = yaml.safe_load(documented("yaml", "PyTorchJob"))
    replicas = job["spec"]["pytorchReplicaSpecs"]
    assert sum(replica["replicas"] for replica in replicas.values()) == 2
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    pods = []
    for rank, replica in enumerate(replicas.values()):
        (container,) = replica["template"]["spec"]["containers"]
        assert container["command"] == ["sh", "-c"]
        (code,) = container["args"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == 4
        code = code.replace("--nproc-per-node 4", "--nproc-per-node 1")
        pods.append(run_shell(programs, code, WORLD_SIZE="2", RANK=str(rank), **address))
    check_run(programs / "runs/kubernetes", *pods)


def test_missing_rendezvous_variables_are_named(tmp_path: Path, cli: Any) -> None:
    result = cli("train", tmp_path, "--nodes", "2")
    assert result.code == 2
    (line,) = result.err.splitlines()
    assert "MASTER_ADDR, MASTER_PORT, NODE_RANK not set" in line
