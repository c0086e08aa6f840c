"""Images per second for a folder, from files to files, compared to the network and a plain loop.

    python benchmarks/folder.py [--images FOLDER] [--bundle FILE [--runtime NAME]]
        [--count N]
    python benchmarks/folder.py --steps

Without --images, it generates scenes of 360x480 as JPEG. Without --bundle, it uses DeepLabV3+ on
MobileNetV2 with random weights in PyTorch. --steps prints the cost of each step besides the
network. The ratio is relative to the network alone with concurrent images, which is its highest
rate.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import harness

HEIGHT, WIDTH, CLASSES = 360, 480, 11


@cache
def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=Path)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--steps", action="store_true")
    return parser.parse_known_args()[0]


def network() -> tuple[harness.Work, int]:
    """The network alone, from images in memory to class indices."""
    predictor = _predictor()
    images = _in_memory()
    return lambda: [predictor.predict_labels(image) for image in images], len(images)


def network_concurrently() -> tuple[harness.Work, int]:
    """The same with concurrent images, if the runtime supports it."""
    predictor = _predictor()
    images = _in_memory()

    def work() -> None:
        with ThreadPoolExecutor(predictor.concurrency) as pool:
            for _ in pool.map(predictor.network.predict_labels_concurrently, images):
                pass

    return work, len(images)


def masks() -> tuple[harness.Work, int]:
    return _folder(overlay=False)


def overlays() -> tuple[harness.Work, int]:
    return _folder(overlay=True)


def loop() -> tuple[harness.Work, int]:
    """A typical script with Pillow and PyTorch's defaults, masks only."""
    import numpy as np
    import torch
    from PIL import Image

    from pixelwise.weights.normalization import IMAGENET

    model, classes, _ = _network()
    model.eval()
    copies = _copies()

    def work() -> None:
        for path in copies:
            image = np.array(Image.open(path).convert("RGB"))
            batch = torch.from_numpy(image).permute(2, 0, 1)[None]
            with torch.inference_mode():
                index = model(IMAGENET(batch))[0].argmax(0).to(torch.uint8).numpy()
            mask = Image.fromarray(index)
            mask.putpalette(classes.palette())
            mask.save(path.with_suffix(".mask.png"))

    return work, len(copies)


def _folder(*, overlay: bool) -> tuple[harness.Work, int]:
    """The same as `pixelwise predict` on a folder, into a new folder each time."""
    from pixelwise.inference import predict_folder

    predictor = _predictor()
    copies = _copies()

    def work() -> None:
        with tempfile.TemporaryDirectory(prefix="pixelwise-bench-") as out:
            predict_folder(predictor, copies, Path(out), overlay=overlay)

    return work, len(copies)


def _network() -> tuple[Any, Any, Any]:
    """Return a model, its classes and its normalization."""
    import torch

    from pixelwise.data.layouts.camvid import CLASSES as CAMVID
    from pixelwise.models import create_model
    from pixelwise.weights.bundle import Bundle
    from pixelwise.weights.normalization import IMAGENET

    if options().bundle is not None:
        bundle = Bundle.load(options().bundle)
        return bundle.build(), bundle.classes, bundle.normalization
    torch.manual_seed(0)
    return create_model("deeplab_v3plus", num_classes=CLASSES), CAMVID, IMAGENET


def _predictor() -> Any:
    from pixelwise.inference import Predictor
    from pixelwise.process_settings import tune_allocator

    tune_allocator()
    if options().bundle is not None:
        return Predictor.load(options().bundle, runtime=options().runtime)
    model, classes, normalization = _network()
    return Predictor.from_model(model, classes, normalization)


@contextmanager
def _image_files() -> Iterator[list[Path]]:
    """Yield the images; generated ones are removed afterwards."""
    from PIL import Image

    from pixelwise.data.image_files import list_images
    from pixelwise.data.scenes import generate_scene

    if options().images is not None:
        yield list_images(options().images)[: options().count]
        return
    with tempfile.TemporaryDirectory(prefix="pixelwise-bench-") as folder:
        paths = [Path(folder) / f"{number:04d}.jpg" for number in range(options().count)]
        for number, path in enumerate(paths):
            scene = generate_scene(number % 20, height=HEIGHT, width=WIDTH)[0]
            Image.fromarray(scene).save(path, quality=95)
        yield paths


def _copies() -> list[Path]:
    """Copy images to a temporary folder until there are `--count`; the system clears it."""
    folder = Path(tempfile.mkdtemp(prefix="pixelwise-bench-"))
    with _image_files() as paths:
        return [
            Path(shutil.copy(paths[number % len(paths)], folder / f"{number:05d}.jpg"))
            for number in range(options().count)
        ]


def _in_memory() -> list[Any]:
    from pixelwise.data.image_files import read_image

    with _image_files() as paths:
        return [read_image(paths[number % len(paths)]) for number in range(options().count)]


def steps() -> None:
    """Print the mean CPU time of each step per image, on one thread."""
    import numpy as np
    from PIL import Image

    from pixelwise.data.image_files import read_image
    from pixelwise.data.png_encoding import encode_palette, encode_rgb
    from pixelwise.inference import Segmentation

    predictor = _predictor()
    classes = predictor.classes
    with _image_files() as paths:
        results = [predictor.segment(path) for path in paths[:20]]
        overlays = [np.asarray(result.overlay()) for result in results]
        palette = classes.palette()

        def fresh(number: int) -> Segmentation:
            done = results[number]
            return Segmentation(done.image, done.labels, classes)

        def pillow_rgb(number: int) -> bytes:
            return _saved(Image.fromarray(overlays[number]))

        def pillow_palette(number: int) -> bytes:
            image = Image.fromarray(results[number].mask)
            image.putpalette(palette)
            return _saved(image)

        functions: dict[str, Callable[[int], Any]] = {
            "decode": lambda number: read_image(paths[number]),
            "class indices to mask values": lambda number: fresh(number).mask,
            "encode the mask": lambda number: encode_palette(results[number].mask, palette),
            "  by Pillow's defaults": pillow_palette,
            "overlay with legend": lambda number: fresh(number).overlay(),
            "encode the overlay": lambda number: encode_rgb(overlays[number]),
            "  by Pillow's defaults ": pillow_rgb,
        }
        print(f"{harness.machine()}; {len(results)} images, {results[0].image.shape}\n")
        for name, step in functions.items():
            step(0)
            started = time.process_time()
            made = [step(number) for number in range(len(results))]
            each = (time.process_time() - started) / len(results)
            sizes = [len(one) for one in made if isinstance(one, bytes)]
            size = f"{sum(sizes) / len(sizes) / 1000:8.1f} kB" if sizes else ""
            print(f"{name:32} {1000 * each:7.2f} ms {size}")


def _saved(image: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()


if __name__ == "__main__":
    if "--steps" in sys.argv:
        steps()
    else:
        harness.main(
            "A folder, from files to files",
            {
                "the network alone, concurrent images": network_concurrently,
                "the network alone, one by one": network,
                "pixelwise predict --no-overlay": masks,
                "pixelwise predict": overlays,
                "a plain loop, PyTorch and Pillow, masks": loop,
            },
            units=1,
            warm_up=1,
            peers={},
        )
        harness.finish()
