"""Images per second on a local Ray cluster, compared to `pixelwise predict` on the same cores.

    python benchmarks/cluster.py [--images 2000] [--rounds 3] [--bundle FILE [--runtime NAME]]

The images are small, so that fixed costs show. Both begin to count when the network is loaded, and
end when all masks have their final names; the start and the end of Ray do not count. Both run in
turn, in new processes. Without --bundle, it uses DeepLabV3+ on MobileNetV2 with random weights.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import harness

SIZE = (128, 96)  # width and height of an image
LINE = "{:>6} {:>15} {:>15} {:>6}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--runtime", default="torch")
    parser.add_argument("--shard-size", type=int)
    parser.add_argument("--work", nargs=2, metavar=("HOW", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work is not None:
        how, folder = arguments.work
        print(work(how, Path(folder), arguments))
        return
    print(f"{harness.machine()}, {arguments.images} images of {SIZE[0]}x{SIZE[1]}\n")
    print(LINE.format("round", "predict, 1/s", "Ray, 1/s", "ratio"), flush=True)
    ratios = []
    with tempfile.TemporaryDirectory(prefix="pixelwise-cluster-") as name:
        write_images(Path(name) / "in", arguments.images)
        bundle = arguments.bundle or write_bundle(Path(name) / "network.safetensors")
        for number in range(1, arguments.rounds + 1):
            command = [sys.executable, __file__, *sys.argv[1:], "--bundle", str(bundle), "--work"]
            with harness.attempt(f"round {number}"):
                seconds = [
                    float(harness.run([*command, how, name]).splitlines()[-1])
                    for how in ("predict", "ray")
                ]
                ratios.append(seconds[0] / seconds[1])
                rates = [f"{arguments.images / each:.1f}" for each in seconds]
                print(LINE.format(number, *rates, f"{ratios[-1]:.0%}"), flush=True)
    if ratios:
        print(f"\nmedian ratio {statistics.median(ratios):.0%}")
    harness.finish()


def work(how: str, folder: Path, arguments: argparse.Namespace) -> float:
    """Predict all images and return the seconds that count."""
    from pixelwise.process_settings import limit_omp_spin, tune_allocator

    limit_omp_spin()
    tune_allocator()
    with tempfile.TemporaryDirectory(dir=folder) as out:
        if how == "predict":
            return predict(folder / "in", Path(out), arguments)
        return predict_on_ray(folder / "in", Path(out), arguments)


def predict(images: Path, out: Path, arguments: argparse.Namespace) -> float:
    import pixelwise
    from pixelwise.inference import predict_folder

    predictor = pixelwise.load(arguments.bundle, runtime=arguments.runtime)
    started = time.perf_counter()
    predict_folder(predictor, images, out, overlay=False)
    return time.perf_counter() - started


def predict_on_ray(images: Path, out: Path, arguments: argparse.Namespace) -> float:
    from pixelwise.cluster.job import predict_shards
    from pixelwise.cluster.ray_engine import RayEngine
    from pixelwise.inference import InferenceOptions

    start, close = RayEngine.start, RayEngine.close
    times: list[float] = []

    def timed_start(*given: object) -> object:
        settings = start(*given)  # type: ignore[arg-type]
        times.append(time.perf_counter())
        return settings

    def timed_close(engine: RayEngine) -> None:
        times.append(time.perf_counter())
        close(engine)

    RayEngine.start, RayEngine.close = timed_start, timed_close  # type: ignore[assignment, method-assign]
    predict_shards(
        arguments.bundle,
        [images],
        out,
        cluster="local",
        options=InferenceOptions(arguments.runtime),
        overlay=False,
        shard_size=arguments.shard_size,
    )
    return times[1] - times[0]


def write_images(folder: Path, count: int) -> None:
    import numpy as np
    from PIL import Image

    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 12, 3), dtype=np.uint8))
        coarse.resize(SIZE, Image.Resampling.BILINEAR).save(folder / f"{number:05d}.png")


def write_bundle(path: Path) -> Path:
    import torch

    from pixelwise.data.layouts.camvid import CLASSES
    from pixelwise.models import create_model
    from pixelwise.weights.bundle import Bundle
    from pixelwise.weights.normalization import IMAGENET

    torch.manual_seed(0)
    model = create_model("deeplab_v3plus", num_classes=len(CLASSES), backbone="mobilenet_v2")
    options = {"backbone": "mobilenet_v2"}
    Bundle("deeplab_v3plus", options, CLASSES, IMAGENET, model.state_dict()).save(path)
    return path


if __name__ == "__main__":
    main()
