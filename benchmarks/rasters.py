"""Training from large rasters: peak memory of `pixelwise train` by size, and where predictions lie.

    python benchmarks/rasters.py [--sizes 2000 20000] [--folder DIR]

It writes a square GeoTIFF of each size with 500 polygons of two classes (5 per million pixels in
smaller ones), trains a small network on it in a separate process, and predicts the raster with
`--large --to geojson`. It prints the peak resident memory of training and the intersection over
union of the predicted with the annotated polygons, measured on the ground.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import harness

CRS, ORIGIN, PIXEL = "EPSG:32633", (400_000.0, 5_700_000.0), 0.25
KINDS = {"field": (60, 170, 60), "roof": (190, 70, 60)}
TILE = 500
EDGE = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[2000, 20000])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="folder for the files, on a large disk")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pixelwise-rasters-", dir=arguments.folder) as name:
        print(f"{harness.machine()}\n")
        print(f"{'pixels':>15} {'polygons':>8} {'windows':>8} {'seconds':>8} {'peak MiB':>9}  IoU")
        for size in arguments.sizes:
            with harness.attempt(f"{size} x {size}"):
                print(measure(Path(name, str(size)), size, arguments.epochs), flush=True)
    harness.finish()


def measure(root: Path, size: int, epochs: int) -> str:
    """Write a raster, train on it, predict it, and return a row of the table."""
    count = min(500, round(5 * size**2 / 1e6))
    outlines = write_dataset(root / "data", size, count)
    run, out = root / "run", root / "predicted"
    settings = [f"epochs={epochs}", "batch_size=4", "seed=1", "augmentation.crop=[256,256]"]
    settings += ["model.options.backbone=tiny", "model.weights=none", "kernels=plain"]
    command = [sys.executable, "-m", "pixelwise"]
    sets = [word for setting in settings for word in ("--set", setting)]
    started = time.perf_counter()
    peak = run_command([*command, "train", root / "data", "--out", run, "--device", "cpu", *sets])
    seconds = time.perf_counter() - started
    splits = json.loads((run / "data.json").read_text())["splits"]
    windows = sum(map(len, splits.values()))
    image = root / "data/raster.tif"
    bundle = run / "best.safetensors"
    run_command([*command, "predict", bundle, image, "--out", out, "--large", "--to", "geojson"])
    found = agreement(out / "raster.geojson", outlines)
    shown = ", ".join(f"{name} {value:.0%}" for name, value in found.items())
    pixels = f"{size} x {size}"
    return f"{pixels:>15} {count:>8} {windows:>8} {seconds:8.0f} {peak:9.0f}  {shown}"


def run_command(command: list[object]) -> float:
    """Run a command and return its peak resident memory in MiB."""
    child = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise harness.CommandError(f"exit code {child.returncode}, its output is above")
    return used.ru_maxrss / 1024


def write_dataset(root: Path, size: int, count: int) -> dict[str, list[object]]:
    """Write raster.tif, labels.gpkg and data.toml; return the polygons of each class."""
    import rasterio
    import shapely
    from affine import Affine
    from pyogrio.raw import write
    from rasterio.features import rasterize
    from rasterio.windows import Window

    rng = np.random.default_rng(size)
    root.mkdir(parents=True)
    outlines, kinds = [], []
    for number in range(count):
        center = rng.uniform(0, size, 2)
        angles = np.sort(rng.uniform(0, 2 * np.pi, 12))
        radius = rng.uniform(60, 220) * rng.uniform(0.7, 1, (12, 1))
        ring = center + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        outlines.append(shapely.Polygon(ring.clip(0, size)).buffer(0))
        kinds.append(list(KINDS)[number % 2])
    a = Affine(PIXEL, 0, ORIGIN[0], 0, -PIXEL, ORIGIN[1])
    colors = np.array([(110, 105, 95), *KINDS.values()], np.int16)
    shapes = [(o, list(KINDS).index(k) + 1) for o, k in zip(outlines, kinds, strict=True)]
    options = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"}
    with rasterio.open(
        root / "raster.tif", "w", driver="GTiff", width=size, height=size, count=3, dtype="uint8",
        crs=CRS, transform=a, bigtiff="if_safer", zlevel=1, **options,
    ) as file:  # fmt: skip
        for top in range(0, size, TILE):
            strip = rasterize(
                shapes, (TILE, size), transform=Affine.translation(0, top), dtype="uint8"
            )
            pixels = colors[strip] + rng.integers(-4, 5, (TILE, size, 1), dtype=np.int16) * 8
            bands = np.moveaxis(pixels.clip(0, 255).astype(np.uint8), 2, 0)
            file.write(bands, window=Window(0, top, size, TILE))
    ground = [shapely.transform(o, lambda p: p * (PIXEL, -PIXEL) + ORIGIN) for o in outlines]
    names = np.array(kinds, dtype=object)
    write(
        root / "labels.gpkg", shapely.to_wkb(np.array(ground)), [names], ["kind"],
        driver="GPKG", geometry_type="Unknown", crs=CRS,
    )  # fmt: skip
    (root / "data.toml").write_text(
        '[[rasters]]\nimage = "raster.tif"\nlabels = { path = "labels.gpkg", attribute = "kind" }\n'
    )
    visible: dict[str, list[object]] = {name: [] for name in KINDS}
    for number, (outline, kind) in enumerate(zip(ground, kinds, strict=True)):
        later = [
            g for g, k in zip(ground[number + 1 :], kinds[number + 1 :], strict=True) if k != kind
        ]
        visible[kind].append(outline.difference(shapely.union_all(later)))
    return visible


def agreement(path: Path, outlines: dict[str, list[object]]) -> dict[str, float]:
    """Return the intersection over union of predicted and annotated polygons by class."""
    import shapely
    from pyogrio.raw import read

    info, _, shapes, fields = read(path)
    if info["crs"] != CRS:
        raise harness.CommandError(f"{path} has the reference system {info['crs']}")
    names = fields[list(info["fields"]).index("class")]
    polygons = shapely.make_valid(shapely.from_wkb(shapes))
    result = {}
    for name, wanted in outlines.items():
        found, truth = shapely.union_all(polygons[names == name]), shapely.union_all(wanted)
        result[name] = found.intersection(truth).area / found.union(truth).area
    return result


if __name__ == "__main__":
    main()
