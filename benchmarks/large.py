"""Images larger than memory: peak memory and time of `pixelwise predict --large` by image size.

    python benchmarks/large.py --sizes 7500 15000 30000 [--compare 30000]

It writes square images of generated scenes as tiled TIFF and predicts them in tiles, with the
command in a separate process. The smallest image, or those of --compare, are also predicted in
memory (at least 4 bytes per pixel), and every pixel is compared. Without --bundle, it uses a small
network with image pooling and random weights.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import harness

TILE = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[7500, 15000, 30000])
    parser.add_argument(
        "--compare", type=int, nargs="+", help="sizes to compare; the smallest by default"
    )
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--tile", default="auto")
    parser.add_argument(
        "--options", nargs="*", default=[], help="more options of predict, without dashes"
    )
    parser.add_argument("--folder", type=Path, help="folder for the files, on a large disk")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pixelwise-large-", dir=arguments.folder) as name:
        folder = Path(name)
        bundle = arguments.bundle or small_bundle(folder / "small.safetensors")
        runtime, tile = arguments.runtime, arguments.tile
        print(f"{harness.machine()}\n{bundle.name}, runtime {runtime}, tile {tile}\n")
        print(f"{'pixels':>14} {'seconds':>8} {'Mpx/s':>7} {'peak MiB':>9}")
        for size in sorted(arguments.sizes):
            image = folder / f"{size}.tif"
            write_image_file(image, size)
            options = [word for one in arguments.options for word in f"--{one}".split("=")]
            command = [sys.executable, "-m", "pixelwise", "predict", str(bundle), str(image)]
            command += ["--large", "--runtime", runtime, "--tile", tile]
            command += ["--out", str(folder / "masks")]
            with harness.attempt(f"{size} x {size}"):
                seconds, peak = measure([*command, *options])
                rate = size**2 / seconds / 1e6
                print(f"{size:>6} x {size:>5} {seconds:8.1f} {rate:7.2f} {peak:9.0f}", flush=True)
                if size in (arguments.compare or [min(arguments.sizes)]):
                    compare(bundle, image, folder / "masks" / image.name, runtime, tile)
            image.unlink()
    harness.finish()


def write_image_file(path: Path, size: int) -> None:
    """Write scenes side by side, darker from left to right, in tiles."""
    import tifffile

    from pixelwise.data.scenes import generate_scene

    scenes = [generate_scene(seed, height=TILE, width=TILE)[0] for seed in range(12)]
    across = -(-size // TILE)

    def tiles() -> Iterator[np.ndarray]:
        rng = np.random.default_rng(size)
        for number in range(across**2):
            scene = scenes[rng.integers(len(scenes))]
            scene = scene[:, ::-1] if rng.random() < 0.5 else scene
            light = 1 - 0.5 * (number % across) / across
            yield np.ascontiguousarray((scene * np.float32(light)).astype(np.uint8))

    tifffile.imwrite(
        path,
        tiles(),
        shape=(size, size, 3),
        dtype=np.uint8,
        tile=(TILE, TILE),
        photometric="rgb",
        compression="zlib",
        compressionargs={"level": 1},
        bigtiff=True,
        metadata=None,
    )


def small_bundle(path: Path) -> Path:
    """Save a network with a few thousand weights, so that the other steps dominate."""
    import torch

    from pixelwise.data.classes import Classes
    from pixelwise.data.scenes import generate_scene
    from pixelwise.inference import Predictor
    from pixelwise.models import create_model
    from pixelwise.weights.bundle import Bundle
    from pixelwise.weights.normalization import IMAGENET

    torch.manual_seed(0)
    options = {"backbone": "tiny", "decoder": False, "aspp": False}
    model = create_model("deeplab_v3plus", num_classes=5, **options)
    classes = Classes.make(["one", "two", "three", "four", "five"])
    scene = generate_scene(0, height=TILE, width=TILE)[0]
    logits = Predictor.from_model(model, classes, IMAGENET).logits(scene)
    with torch.no_grad():  # so that all classes are predicted
        model.head.classify.bias -= torch.from_numpy(logits.mean(axis=(1, 2)))
    Bundle("deeplab_v3plus", options, classes, IMAGENET, model.state_dict()).save(path)
    return path


def measure(command: list[str]) -> tuple[float, float]:
    """Return the seconds and the peak resident memory in MiB of a command."""
    started = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise harness.CommandError(f"exit code {child.returncode}, its output is above")
    return time.perf_counter() - started, used.ru_maxrss / 1024


def compare(bundle: Path, image: Path, mask: Path, runtime: str, tile: str) -> None:
    """Predict the same image in memory, in tiles of the same size, and count differences."""
    import tifffile

    from pixelwise.inference import InferenceOptions, Predictor
    from pixelwise.inference.batch.large_images import MEMORY
    from pixelwise.inference.tiling.tiled_model import TiledModel

    options = InferenceOptions(runtime=runtime)
    predictor = Predictor.from_options(bundle, options, prefer_tiling=True)
    side: int | str = int(tile) if tile.isdigit() else tile
    network = TiledModel(predictor.runtime, tile=side, memory=MEMORY)
    values = predictor.classes.to_value(network.predict_labels(tifffile.imread(image)))
    written = tifffile.imread(mask)
    fractions = np.bincount(written.reshape(-1)) / written.size
    print(
        f"{'':15}pixels that differ from those predicted in memory: {(values != written).sum()}; "
        f"fractions of the classes {', '.join(f'{fraction:.0%}' for fraction in fractions)}"
    )


if __name__ == "__main__":
    main()
