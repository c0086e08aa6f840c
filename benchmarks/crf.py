"""Compare our dense CRF with pydensecrf: time, and difference of the results.

    python benchmarks/crf.py [--peer PYTHON] [--photo IMAGE MASK]... [--record FILE]

The inputs are a generated street scene of 500x375 and any given images with masks, resized to that
size, with probabilities like those of a network of stride 8. Both run 10 iterations. PYTHON is an
interpreter with pydensecrf2; without it only our times are printed. --record writes pydensecrf's
results on small images to FILE, with which tests/test_crf.py compares ours. At the end the script
prints the time of the first call, which compiles, that of the first call in a later process, and
the peak memory for a large image.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
from collections.abc import Callable
from datetime import date
from pathlib import Path

import harness

HEIGHT, WIDTH, ITERATIONS = 375, 500, 10
CLASS_COUNTS = (2, 11, 21)
PARAMETERS = "v1-largefov"
LARGE = (2000, 3000, 21)  # height, width, classes

PEER = """
import json, sys, time, numpy as np, pydensecrf.densecrf as dcrf
from pydensecrf.utils import unary_from_softmax
inputs = np.load(sys.argv[1])
image, probabilities = inputs["image"], inputs["probabilities"]
bi_w, bi_xy, bi_rgb, pos_w, pos_xy, iterations = inputs["parameters"].tolist()
def run():
    classes, height, width = probabilities.shape
    crf = dcrf.DenseCRF2D(width, height, classes)
    crf.setUnaryEnergy(unary_from_softmax(probabilities))
    crf.addPairwiseGaussian(sxy=pos_xy, compat=pos_w)
    crf.addPairwiseBilateral(sxy=bi_xy, srgb=bi_rgb, rgbim=image, compat=bi_w)
    return np.array(crf.inference(int(iterations))).reshape(probabilities.shape)
"""
OURS = """
import sys, time, numpy as np
from pixelwise.crf import CRFParameters, dense_crf
inputs = np.load(sys.argv[1])
image, probabilities = inputs["image"], inputs["probabilities"]
*numbers, iterations = inputs["parameters"].tolist()
parameters = CRFParameters(*numbers, iterations=int(iterations))
run = lambda: dense_crf(image, probabilities, parameters)
"""
TIMED = """
import json
run()
seconds = []
for _ in range(int(sys.argv[3])):
    started = time.perf_counter()
    result = run()
    seconds.append(time.perf_counter() - started)
np.save(sys.argv[2], result)
print(json.dumps(seconds))
"""

FIRST = """
import time, numpy as np
from pixelwise.crf import dense_crf
started = time.perf_counter()
dense_crf(np.zeros((8, 8, 3), np.uint8), np.full((2, 8, 8), 0.5, np.float32))
print(time.perf_counter() - started)
"""
MEMORY = """
import json, time, numpy as np
from pixelwise.peak_memory import peak_memory
from pixelwise.crf import dense_crf
from pixelwise.data.scenes import generate_scene
image, mask = generate_scene(0, height={height}, width={width})
probabilities = np.full(({classes}, {height}, {width}), 0.3 / ({classes} - 1), np.float32)
for c in range({classes}):
    probabilities[c][mask % {classes} == c] = 0.7
before, started = peak_memory(), time.perf_counter()
dense_crf(image, probabilities, "v1-largefov")
print(json.dumps([time.perf_counter() - started, before / 2**30, peak_memory() / 2**30]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", metavar="PYTHON", help="interpreter with pydensecrf2")
    parser.add_argument(
        "--photo",
        nargs=2,
        action="append",
        default=[],
        metavar=("IMAGE", "MASK"),
        help="image and mask; repeatable",
    )
    parser.add_argument("--repeats", type=int, default=3, help="processes per implementation")
    parser.add_argument("--runs", type=int, default=5, help="timed runs per process")
    parser.add_argument("--record", metavar="FILE", type=Path, help="file for the test's data")
    arguments = parser.parse_args()
    if arguments.record:
        record(arguments.peer, arguments.record)
    else:
        compare(arguments.peer, arguments.photo, repeats=arguments.repeats, runs=arguments.runs)
        with harness.attempt("first calls"):
            print_first_calls()
        with harness.attempt("memory"):
            print_memory()
        harness.finish()


def compare(peer: str | None, photos: list[tuple[str, str]], *, repeats: int, runs: int) -> None:
    """Print a table of the fastest runs, since noise only ever adds time."""
    import numpy as np

    from pixelwise.crf import PARAMETER_SETS

    implementations = {"ours": (sys.executable, OURS)}
    if peer:
        implementations["pydensecrf"] = (peer, PEER)
    print(f"Dense CRF, {WIDTH}x{HEIGHT}, {ITERATIONS} iterations, {PARAMETERS}, best of")
    print(f"{repeats} x {runs} runs; {harness.machine()}, {date.today().isoformat()}\n")
    print(
        f"{'image':16} {'classes':>7} {'ours':>9} {'median':>9} {'pydensecrf':>11} {'median':>9} "
        f"{'ratio':>6} {'max difference':>15} {'equal labels':>13} {'changed':>8}"
    )
    inputs = {"scene": scene(), **{Path(image).stem: read(image, mask) for image, mask in photos}}
    for (name, (image, mask)), classes in itertools.product(inputs.items(), CLASS_COUNTS):
        probabilities = network_like(mask, classes)
        seconds: dict[str, list[float]] = {key: [] for key in implementations}
        results = {}
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "inputs.npz"
            numbers = list(PARAMETER_SETS[PARAMETERS].to_json().values())
            np.savez(file, image=image, probabilities=probabilities, parameters=numbers)
            for _ in range(repeats):
                for key, (python, code) in implementations.items():
                    if key in harness.failures:
                        continue
                    out = Path(folder) / f"{key}.npy"
                    with harness.attempt(key):
                        seconds[key] += execute(python, code + TIMED, file, out, runs)
                        results[key] = np.load(out)
        line = f"{name:16} {classes:7}"
        line += f" {_ms(seconds['ours'], min):>9} {_ms(seconds['ours'], _median):>9}"
        if len(results) < 2:
            line += f" {_ms(seconds.get('pydensecrf', []), min):>11}"
        else:
            theirs = seconds["pydensecrf"]
            difference = np.abs(results["ours"] - results["pydensecrf"]).max()
            labels = [result.argmax(axis=0) for result in results.values()]
            changed = (labels[0] != probabilities.argmax(axis=0)).mean()
            line += (
                f" {_ms(theirs, min):>11} {_ms(theirs, _median):>9}"
                f" {min(theirs) / min(seconds['ours']):6.2f} {difference:15.1e}"
                f" {(labels[0] == labels[1]).mean():13.4%} {changed:8.1%}"
            )
        print(line, flush=True)


def print_first_calls() -> None:
    """Time the first call in two processes that share a new cache of compiled functions."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "NUMBA_CACHE_DIR": folder}
        seconds = [_child(FIRST, environment) for _ in range(2)]
    print(
        f"\nfirst call, which compiles: {seconds[0]:.1f} s; in a later process {seconds[1]:.1f} s"
    )


def print_memory() -> None:
    height, width, classes = LARGE
    seconds, before, after = _child(MEMORY.format(height=height, width=width, classes=classes))
    print(
        f"{width}x{height}, {classes} classes: {seconds:.1f} s; peak memory {after:.2f} GiB, of "
        f"which {before:.2f} GiB before the call (the image and its probabilities)"
    )


def _child(code: str, environment: dict[str, str] | None = None):  # type: ignore[no-untyped-def]
    return json.loads(harness.run([sys.executable, "-c", code], env=environment))


def execute(python: str, code: str, file: Path, out: Path, runs: int) -> list[float]:
    command = [python, "-c", code, str(file), str(out), str(runs)]
    return list(json.loads(harness.run(command).splitlines()[-1]))


def scene():  # type: ignore[no-untyped-def]
    """Return a generated image (H, W, 3) and its mask (H, W)."""
    from pixelwise.data.scenes import generate_scene

    return generate_scene(0, height=HEIGHT, width=WIDTH)


def read(image: str, mask: str):  # type: ignore[no-untyped-def]
    """Read an image and its mask, resized to WIDTH x HEIGHT."""
    import numpy as np
    from PIL import Image

    with Image.open(image) as photo, Image.open(mask) as labels:
        return (
            np.asarray(photo.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)),
            np.asarray(labels.resize((WIDTH, HEIGHT), Image.Resampling.NEAREST)),
        )


def network_like(mask, classes: int):  # type: ignore[no-untyped-def]
    """Return noisy probabilities (C, H, W) for a mask, as smooth as those of a network of stride 8.

    If there are more classes than in the mask, regions get other classes by their position.
    """
    import numpy as np

    y, x = np.mgrid[:HEIGHT, :WIDTH]
    label = (mask.astype(int) + 7 * (y // 125) + 3 * (x // 125)) % classes
    coarse = (np.arange(classes)[:, None, None] == label[4::8, 4::8]) * 4.0
    coarse += np.random.default_rng(0).normal(0, 1, coarse.shape)
    rows, columns = (
        np.clip((np.arange(size) - 4) / 8, 0, limit - 1.001)
        for size, limit in zip((HEIGHT, WIDTH), coarse.shape[1:], strict=True)
    )
    logits = _interpolate(_interpolate(coarse, rows, 1), columns, 2)
    powers = np.exp(logits - logits.max(axis=0))
    return (powers / powers.sum(axis=0)).astype(np.float32)


def _interpolate(values, positions, axis: int):  # type: ignore[no-untyped-def]
    """Interpolate `values` linearly along an axis at fractional positions."""
    import numpy as np

    first = positions.astype(int)
    shape = [1] * values.ndim
    shape[axis] = -1
    weight = (positions - first).reshape(shape)
    return values.take(first, axis) * (1 - weight) + np.take(values, first + 1, axis) * weight


def record(peer: str | None, path: Path) -> None:
    """Write pydensecrf's results for small cases.

    The images have a multiple of 4 pixels, or a black first pixel: pydensecrf's SSE code pads other
    sizes with points at the origin, in position and color, whose lattice vertices then take part in
    the blur. A black first pixel has these vertices already.
    """
    import numpy as np

    if peer is None:
        sys.exit("--record needs --peer PYTHON with pydensecrf2")
    cases = []
    for name, classes, (height, width), numbers in (
        ("v1-largefov", 3, (12, 16), (4, 49, 5, 3, 3, 10)),
        ("v2-resnet101", 2, (10, 14), (4, 67, 3, 3, 1, 10)),
        ("five iterations", 9, (8, 11), (5, 20, 13, 2, 2, 5)),
        ("odd, first pixel black", 21, (9, 13), (4, 49, 5, 3, 3, 10)),
    ):
        rng = np.random.default_rng(classes)
        side = np.arange(width) >= width // 2
        image = np.where(side[:, None], 170, 80) + rng.integers(0, 24, (height, width, 3))
        image = image.astype(np.uint8)
        if height * width % 4:
            image[0, 0] = 0
        logits = rng.normal(0, 1.5, (classes, height, width))
        logits[0] += 1.5 * side
        powers = np.exp(logits)
        probabilities = np.round(powers / powers.sum(axis=0), 4)
        probabilities[0] += 1 - probabilities.sum(axis=0)
        probabilities = probabilities.astype(np.float32)
        with tempfile.TemporaryDirectory() as folder:
            file, out = Path(folder) / "inputs.npz", Path(folder) / "out.npy"
            np.savez(file, image=image, probabilities=probabilities, parameters=numbers)
            execute(peer, PEER + TIMED, file, out, 1)
            refined = np.load(out)
        names = ("bi_w", "bi_xy", "bi_rgb", "pos_w", "pos_xy", "iterations")
        cases.append(
            {
                "name": name,
                "parameters": dict(zip(names, numbers, strict=True)),
                "image": image.tolist(),
                "probabilities": np.round(probabilities.astype(float), 6).tolist(),
                "refined": np.round(refined.astype(float), 6).tolist(),
            }
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    path.write_text(f"[{lines}]\n", encoding="utf-8")


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _ms(seconds: list[float], summary: Callable[[list[float]], float]) -> str:
    return f"{1000 * summary(seconds):.0f} ms" if seconds else "-"


if __name__ == "__main__":
    main()
