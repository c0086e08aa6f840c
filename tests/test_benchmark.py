"""`pixelwise benchmark`: every runtime that is there, beside eager, with figures that add up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pixelwise.benchmark import benchmark, benchmark_worker
from pixelwise.benchmark.measurements import REFERENCE, runtimes_for
from pixelwise.data.classes import Classes
from pixelwise.errors import InputError, PixelwiseError
from pixelwise.models import create_model
from pixelwise.weights.bundle import Bundle
from pixelwise.weights.normalization import IMAGENET


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    options = {"backbone": "tiny"}
    model = create_model("deeplab_v3plus", num_classes=3, **options)
    path = tmp_path_factory.mktemp("bundle") / "net.safetensors"
    classes = Classes.make(["a", "b", "c"])
    Bundle("deeplab_v3plus", options, classes, IMAGENET, model.state_dict()).save(path)
    return path


def test_the_command_measures_torch_beside_eager(bundle: Path) -> None:
    arguments = ["--size", "48x64", "--rounds", "1", "--seconds", "0", "--json", "-"]
    command = [sys.executable, "-m", "pixelwise", "benchmark", str(bundle), *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    eager, own = json.loads(done.stdout)["measurements"]
    assert (eager["runtime"], own["runtime"]) == (REFERENCE, "torch")
    assert eager["times as fast as eager"] == 1
    assert own["labels equal to eager"] == 1
    assert own["size"] == [48, 64]
    assert own["images per second"] == pytest.approx(1000 / own["milliseconds"], rel=1e-3)
    assert 0 < own["not the network"] < 1
    assert 50e6 < own["peak bytes"] < 8e9


def test_what_cannot_be_measured_is_refused(bundle: Path, tmp_path: Path) -> None:
    assert runtimes_for(bundle) == ["torch"]
    with pytest.raises(InputError, match="at least 16 pixels"):
        benchmark(bundle, sizes=[(8, 64)])
    (tmp_path / "x.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="is empty"):
        benchmark(tmp_path / "x.safetensors", sizes=[(48, 64)])
    whole = bundle.read_bytes()
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(PixelwiseError, match="cannot run it"):
        benchmark(damaged, sizes=[(48, 64)], rounds=1, seconds=0)


def test_memory_is_that_of_the_process_and_not_of_its_parent(tmp_path: Path) -> None:
    held = np.ones(600 << 20, np.uint8)  # what a child must not be charged with
    code = "from pixelwise.benchmark.benchmark_worker import _peak_memory; print(_peak_memory())"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert held.any()
    assert int(done.stdout) < 500e6
    assert (benchmark_worker._peak_memory() or 0) > 600e6
