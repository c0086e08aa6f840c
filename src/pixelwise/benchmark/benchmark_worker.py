"""Measure one runtime at one size in its own process: `python -m` this module with JSON.

It prints one line of JSON. A separate process is needed because freed memory stays with the
process, the thread pools of two runtimes disturb each other, and a plain PyTorch script runs
without pixelwise's process settings.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pixelwise.data.pixel_format import PixelFormat
from pixelwise.data.scenes import generate_scene
from pixelwise.peak_memory import peak_memory

EAGER = {"eager": False, "eager channels_last": True}  # whether memory is channels_last
JPEG_QUALITY = 90
FILE_REPEATS = 5


def main(request: dict[str, Any]) -> dict[str, Any]:
    """Measure the latency of a runtime.

    Args:
        request: `bundle`, `runtime`, `size` (height, width), `seconds` to repeat, and `labels`, a
            file for the predicted labels.

    Returns:
        `times` of each call and `file_time` to read an image and write its results, both in
        milliseconds, and `peak` memory in bytes.
    """
    height, width = request["size"]
    scene = generate_scene(0, height=height, width=width)[0]
    name = request["runtime"]
    file_time = None
    if name in EAGER:
        classify, pixels = _load_eager(Path(request["bundle"]), channels_last=EAGER[name])
    else:
        from pixelwise.inference import Predictor
        from pixelwise.process_settings import tune_allocator

        tune_allocator()
        predictor = Predictor.load(request["bundle"], runtime=name)
        classify, pixels = predictor.predict_labels, predictor.pixels
        file_time = _measure_files(predictor, scene)
    image = pixels.like(scene)
    labels = classify(image)
    classify(image)
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 3 or time.perf_counter() - began < request["seconds"]:
        started = time.perf_counter()
        classify(image)
        times.append(1000 * (time.perf_counter() - started))
    np.save(request["labels"], labels)
    return {"times": times, "file_time": file_time, "peak": peak_memory()}


def _load_eager(path: Path, *, channels_last: bool) -> tuple[Callable[[Any], Any], PixelFormat]:
    """Load the network as a plain PyTorch script would; return its function and pixel format."""
    import torch

    from pixelwise.weights.bundle import Bundle

    bundle = Bundle.load(path)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    model = bundle.build().to(memory_format=memory_format)  # type: ignore[call-overload]

    @torch.inference_mode()
    def classify(image: Any) -> Any:
        batch = torch.from_numpy(image).permute(2, 0, 1)[None]
        batch = bundle.normalization(batch.contiguous(memory_format=memory_format))
        return model(batch)[0].argmax(0).to(torch.uint8).numpy()

    return classify, bundle.pixels


def _measure_files(predictor: Any, image: Any) -> float:
    """Return the median milliseconds to decode a JPEG and to write its mask and overlay."""
    from PIL import Image

    from pixelwise.data.image_files import read_image
    from pixelwise.inference import Prediction

    rows, columns = image.shape[:2]
    logits = np.zeros((len(predictor.classes), rows, columns), np.float32)
    index = (np.add.outer(np.arange(rows), np.arange(columns)) // 40 % len(logits)).astype(np.uint8)
    times = []
    with tempfile.TemporaryDirectory(prefix="pixelwise-benchmark-") as folder:
        file = Path(folder) / "image.jpg"
        Image.fromarray(image).save(file, quality=JPEG_QUALITY)
        for _ in range(FILE_REPEATS):
            started = time.perf_counter()
            pixels = read_image(file)
            Prediction(pixels, index, predictor.classes, logits).save(Path(folder), "result")
            times.append(1000 * (time.perf_counter() - started))
    return float(np.median(times))


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
