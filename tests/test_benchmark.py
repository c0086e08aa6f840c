"""`pixelwise benchmark`: every available runtime next to eager PyTorch, with consistent figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pixelwise.benchmark import benchmark
from pixelwise.benchmark.runtime_benchmark import REFERENCE, available_runtimes
from pixelwise.data.classes import Classes
from pixelwise.errors import InputError, PixelwiseError
from pixelwise.models import create_model
from pixelwise.peak_memory import peak_memory
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


def test_the_command_measures_torch_next_to_eager(bundle: Path) -> None:
    arguments = ["--size", "48x64", "--rounds", "1", "--seconds", "0", "--json", "-"]
    command = [sys.executable, "-m", "pixelwise", "benchmark", str(bundle), *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    eager, ours = json.loads(done.stdout)["measurements"]
    assert (eager["runtime"], ours["runtime"]) == (REFERENCE, "torch")
    assert eager["times as fast as eager"] == 1
    assert ours["labels equal to eager"] == 1
    assert ours["size"] == [48, 64]
    assert ours["images per second"] == pytest.approx(1000 / ours["milliseconds"], rel=1e-3)
    assert 0 < ours["not the network"] < 1
    assert 50e6 < ours["peak bytes"] < 8e9


def test_sizes_and_bundles_that_cannot_be_measured_are_refused(
    bundle: Path, tmp_path: Path
) -> None:
    assert available_runtimes(bundle) == ["torch"]
    with pytest.raises(InputError, match="at least 16 pixels"):
        benchmark(bundle, sizes=[(8, 64)])
    (tmp_path / "x.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="is empty"):
        benchmark(tmp_path / "x.safetensors", sizes=[(48, 64)])
    content = bundle.read_bytes()
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(PixelwiseError, match="cannot run it"):
        benchmark(damaged, sizes=[(48, 64)], rounds=1, seconds=0)


def test_peak_memory_excludes_the_parent_process() -> None:
    held = np.ones(600 << 20, np.uint8)  # must not count for the child
    code = "from pixelwise.peak_memory import peak_memory; print(peak_memory())"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert held.any()
    assert int(done.stdout) < 500e6
    assert (peak_memory() or 0) > 600e6
