"""One runtime at one size, in a process of its own: `python -m pixelwise.benchmark.benchmark_worker JSON`.

Prints one line of JSON. In a process of its own, since memory that is freed stays with it, thread
pools of two runtimes get into each other's way, and a plain script has no settings of ours.
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

EAGER = {"eager": False, "eager channels_last": True}
JPEG_QUALITY = 90


def main(request: dict[str, Any]) -> dict[str, Any]:
    """request: bundle, runtime, size (rows and columns), seconds, labels (a file to write)."""
    height, width = request["size"]
    scene = generate_scene(0, height=height, width=width)[0]
    name = request["runtime"]
    if name in EAGER:
        classify, pixels = _eager(Path(request["bundle"]), channels_last=EAGER[name])
        others = None
    else:
        from pixelwise.inference import Predictor
        from pixelwise.process_settings import tune_allocator

        tune_allocator()
        predictor = Predictor.load(request["bundle"], runtime=name)
        classify, pixels = predictor.classify, predictor.pixels
        others = _not_network(predictor, scene)
    image = pixels.like(scene)
    labels = classify(image)
    classify(image)
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 3 or time.perf_counter() - began < request["seconds"]:
        start = time.perf_counter()
        classify(image)
        times.append(1000 * (time.perf_counter() - start))
    np.save(request["labels"], labels)
    return {"times": times, "other": others, "peak": _peak_memory()}


def _eager(path: Path, *, channels_last: bool) -> tuple[Callable[[Any], Any], PixelFormat]:
    """The network as a plain PyTorch script would run it, and what it is given."""
    import torch

    from pixelwise.weights.bundle import Bundle

    bundle = Bundle.load(path)
    order = torch.channels_last if channels_last else torch.contiguous_format
    model = bundle.build().to(memory_format=order)  # type: ignore[call-overload]

    def classify(image: Any) -> Any:
        with torch.inference_mode():
            batch = torch.from_numpy(image).permute(2, 0, 1)[None].contiguous(memory_format=order)
            return model(bundle.normalization(batch))[0].argmax(0).to(torch.uint8).numpy()

    return classify, bundle.pixels


def _not_network(predictor: Any, image: Any) -> float:
    """Milliseconds to decode a JPEG and to write its mask and overlay, the median of five."""
    from PIL import Image

    from pixelwise.data.image_files import read_image
    from pixelwise.inference import Prediction

    rows, columns = image.shape[:2]
    logits = np.zeros((len(predictor.classes), rows, columns), np.float32)
    index = (np.add.outer(np.arange(rows), np.arange(columns)) // 40 % len(logits)).astype(np.uint8)
    times = []
    with tempfile.TemporaryDirectory(prefix="pixelwise-benchmark-") as folder:
        file = Path(folder) / "photo.jpg"
        Image.fromarray(image).save(file, quality=JPEG_QUALITY)
        for _ in range(5):
            began = time.perf_counter()
            pixels = read_image(file)
            Prediction(pixels, index, predictor.classes, logits).save(Path(folder), "result")
            times.append(1000 * (time.perf_counter() - began))
    return float(np.median(times))


def _peak_memory() -> int | None:
    """The largest resident memory of this process so far, in bytes; None where it is not told."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux, where getrusage counts in what the parent held at the fork
        lines = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return 1024 * int(lines[0].split()[1]) if lines else None
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
