"""Measure the latency of exported networks next to eager PyTorch, each at its usual image size.

    python benchmarks/runtimes.py [--network NAME] [--rounds N]

The weights are random, since speed does not depend on them. The scores are therefore random too,
and the limit of int8's loss is disabled, unlike in a real export. Each runtime is measured in its
own processes, which take turns. Eager PyTorch runs as in a plain script, in the faster of its two
memory formats. What cannot be exported or run is left out, and reported at the end.
"""

from __future__ import annotations

import argparse
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import torch

import harness
from pixelwise.benchmark import benchmark
from pixelwise.data.classes import Classes, write_classes_toml
from pixelwise.data.dataset import open_dataset
from pixelwise.data.scenes import write_scenes
from pixelwise.exporters import export
from pixelwise.models import create_model
from pixelwise.weights.bundle import Bundle
from pixelwise.weights.normalization import IMAGENET

# network, options, number of classes, (height, width)
NETWORKS: dict[str, tuple[str, dict[str, Any], int, tuple[int, int]]] = {
    "v3plus": ("deeplab_v3plus", {}, 11, (360, 480)),
    "v3": ("deeplab_v3", {"backbone": "resnet50", "output_stride": 8}, 21, (520, 520)),
    "fcn-resnet": ("fcn_resnet_dilated", {"backbone": "resnet50"}, 21, (520, 520)),
    "fcn8s": ("fcn8s", {}, 21, (500, 500)),
}
CALIBRATION = 6  # images


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", choices=NETWORKS, action="append")
    parser.add_argument("--rounds", type=int, default=3, help="processes per runtime")
    arguments = parser.parse_args()
    print(f"{harness.machine()}, {date.today().isoformat()}, {arguments.rounds} rounds, medians")
    for name in arguments.network or NETWORKS:
        with (
            tempfile.TemporaryDirectory(prefix="pixelwise-bench-") as folder,
            harness.attempt(name),
        ):
            measure(name, Path(folder), rounds=arguments.rounds)
    harness.finish()


def measure(name: str, folder: Path, *, rounds: int) -> None:
    network, options, classes, size = NETWORKS[name]
    path = random_bundle(folder / "net.safetensors", network, options, classes)
    write_scenes(folder / "scenes", train=CALIBRATION, val=1, height=size[0], width=size[1])
    write_classes_toml(folder / "scenes" / "classes.toml", Bundle.load(path).classes)
    data = open_dataset(folder / "scenes", splits=("train", "val"))
    int8 = {"int8": True, "data": data, "max_drop": 100, "calibration": CALIBRATION}
    for label, target, settings in (
        ("openvino", "openvino", {}),
        ("onnx", "onnx", {}),
        ("openvino int8", "openvino", int8),
    ):
        with harness.attempt(f"{name}: export to {label}"):
            export(path, to=target, **settings)
    print(f"\n{network} {options}, {classes} classes, {size[0]}x{size[1]}")
    print(f"{'':16} {'ms':>8} {'x eager':>8} {'equal labels':>13} {'GiB':>6}")
    failed: dict[str, str] = {}
    for row in benchmark(path, sizes=[size], rounds=rounds, failed=failed):
        memory = "" if row.memory is None else f"{row.memory / 2**30:.2f}"
        print(
            f"{row.runtime:16} {row.milliseconds:8.1f} {row.speedup:8.2f} {row.equal:13.2%} "
            f"{memory:>6}",
            flush=True,
        )
    harness.failures.update({f"{name}: {runtime}": why for runtime, why in failed.items()})


def random_bundle(path: Path, network: str, options: dict[str, Any], classes: int) -> Path:
    torch.manual_seed(0)
    model = create_model(network, num_classes=classes, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():  # FCN initializes its score layers to 0
                parameter.normal_(0, 0.01)
    names = Classes.make([f"class_{i}" for i in range(classes)], ignore=255)
    Bundle(network, options, names, IMAGENET, model.state_dict()).save(path)
    return path


if __name__ == "__main__":
    main()
