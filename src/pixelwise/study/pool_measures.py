"""Measure the images of a pool with a network: what it is unsure about, features, fingerprints.

Measurements are appended to a log as they are made, so that a command that was stopped or killed
continues, and another selection from the same pool is quick.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pixelwise.data.dataset_scan import ProgressCallback
from pixelwise.data.pixel_format import Pixels, as_shown
from pixelwise.doctor.measures.fingerprint import Fingerprint, fingerprint
from pixelwise.errors import InputError
from pixelwise.file_io import append_whole, write_text
from pixelwise.inference import Predictor
from pixelwise.inference.batch.image_work import file_stamp
from pixelwise.inference.batch.pipeline import overlapped
from pixelwise.interrupts import Interrupts, StoppedError
from pixelwise.overwriting import json_mark
from pixelwise.process_settings import cores

FORMAT = 1
LOG_MARK = json_mark("select")
FEATURES = 256
"""Longer feature vectors are projected at random to this length, which keeps distances."""

Floats = NDArray[np.float32]
Result = TypeVar("Result")


@dataclass(frozen=True)
class NetworkMeasures:
    """What a network finds in an image.

    Attributes:
        doubt: (C,) mean over the pixels of the probability of a class times the entropy of all
            probabilities: how much of the doubt concerns each class.
        features: (D,) mean over the pixels of the last feature map of the backbone.
    """

    doubt: Floats
    features: Floats


class NetworkProbe:
    """Computes `NetworkMeasures`.

    Args:
        predictor: The network, run by PyTorch.

    Raises:
        InputError: If the network has a single class, or no backbone.
    """

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        name = predictor.path or "the network"
        if len(predictor.classes) < 2:
            raise InputError(
                f"{name}: distinguishes a single class, so it is never unsure: train it with at "
                "least two classes"
            )
        backbone = getattr(getattr(predictor.runtime, "model", None), "backbone", None)
        if backbone is None:
            raise InputError(f"{name}: has no backbone: give a bundle of `pixelwise train`")
        backbone.register_forward_hook(self._add)
        self._sums: list[torch.Tensor] = []
        self._positions = 0

    def __call__(self, pixels: Pixels) -> NetworkMeasures:
        """Measure an image from `Predictor.prepare`, which may be large: it is tiled."""
        self._sums, self._positions = [], 0
        probabilities = self.predictor.predict_prepared(pixels).probabilities
        total = torch.stack(self._sums).sum(dim=0)
        features = (total / self._positions).float().cpu().numpy()
        doubt = (probabilities * entropy(probabilities)).mean(axis=(1, 2), dtype=np.float64)
        return NetworkMeasures(doubt.astype(np.float32), _project(features))

    def _add(self, module: torch.nn.Module, inputs: Any, maps: Mapping[str, torch.Tensor]) -> None:
        last = list(maps.values())[-1][0]
        self._sums.append(last.double().sum(dim=(1, 2)))
        self._positions += last.shape[1] * last.shape[2]


def entropy(probabilities: Floats) -> Floats:
    """Return the entropy (H, W) of probabilities (C, H, W), in units of its maximum: 0..1."""
    logarithms = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
    result: Floats = -(probabilities * logarithms).sum(axis=0) / np.log(len(probabilities))
    return result


def take_fingerprint(pixels: Pixels) -> Fingerprint | None:
    """Return the fingerprint of an image from `Predictor.prepare`; None if it is too flat."""
    rgb = as_shown(pixels)
    return fingerprint(rgb, np.asarray(Image.fromarray(rgb).convert("L")))


class MeasureLog:
    """The log of measurements: one line for each image and kind.

    Args:
        path: The file.
        settings: What decides the measurements, as plain JSON. A log with others starts over.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        header = json.dumps({"written_by": "pixelwise select", "format": FORMAT, **settings})
        self.lines: dict[tuple[str, str], dict[str, Any]] = {}
        lines = _read_lines(path)
        if not lines or lines[0] != header:
            write_text(path, header + "\n")
            return
        for text in lines[1:]:
            try:
                line = json.loads(text)
                self.lines[line["kind"], line["image"]] = line
            except (ValueError, KeyError, TypeError):  # torn by a kill
                continue
        if not path.read_bytes().endswith(b"\n"):
            write_text(path, "\n".join(lines) + "\n")

    def find(self, kind: str, image: Path) -> dict[str, Any] | None:
        """Return what was recorded for an image that has not changed since."""
        line = self.lines.get((kind, str(image.resolve())))
        if line is None or line["stamp"] != _stamp(image):
            return None
        return line

    def add(self, kind: str, image: Path, stamp: Sequence[int], values: Mapping[str, Any]) -> None:
        """Record a measurement; raise OSError if it cannot be written."""
        line = {"kind": kind, "image": str(image.resolve()), "stamp": list(stamp), **values}
        self.lines[kind, line["image"]] = line
        with self.path.open("ab", buffering=0) as stream:
            append_whole(stream, (json.dumps(line) + "\n").encode())


def measure_images(
    images: Sequence[Path],
    log: MeasureLog,
    predictor: Predictor,
    kind: str,
    measure: Callable[[Pixels], Result],
    encode: Callable[[Result], Mapping[str, Any]],
    *,
    parallel: bool,
    progress: ProgressCallback | None,
) -> tuple[list[Path], list[str]]:
    """Measure those images that the log lacks.

    Args:
        images: The images.
        log: Where measurements are recorded.
        predictor: Reads the images.
        kind: Name of the measurement in the log.
        measure: Measures an image.
        encode: Converts a result to plain JSON.
        parallel: Whether `measure` uses one core, and may run in several threads.
        progress: Called with (done, total) after each image.

    Returns:
        The images that are measured, in order, and one line for each that cannot be read.

    Raises:
        StoppedError: On Ctrl-C or SIGTERM.
    """
    missing = [image for image in images if log.find(kind, image) is None]
    stamps: dict[Path, tuple[int, int]] = {}
    faults: list[str] = []
    failed: set[Path] = set()

    def read(image: Path) -> Pixels:
        stamp = file_stamp(image)  # before reading, so that a change is noticed
        stamps[image] = stamp.size, stamp.modified
        return predictor.prepare(image)

    with Interrupts() as interrupts:
        steps = overlapped(
            missing,
            prepare=read,
            work=measure,
            finish=lambda _, result: encode(result),
            size=lambda pixels: pixels.nbytes * (1 + 8 * len(predictor.classes)),
            stop=lambda: interrupts.requested is not None,
            concurrency=max(2, cores()) if parallel else 1,
        )
        done = len(images) - len(missing)
        with closing(steps):
            for step in steps:
                if step.fault is not None:
                    faults += step.fault.problems
                    failed.add(step.item)
                else:
                    assert step.result is not None
                    log.add(kind, step.item, stamps[step.item], step.result)
                done += 1
                if progress is not None:
                    progress(done, len(images))
        if done < len(images):
            assert interrupts.requested is not None
            raise StoppedError(
                f"{log.path.parent}: stopped with {done} of {len(images)} images measured: the "
                "same command continues",
                signal_number=interrupts.requested,
            )
    return [image for image in images if image not in failed], faults


def encode_fingerprint(found: Fingerprint | None) -> dict[str, Any]:
    """Return a fingerprint as plain JSON."""
    if found is None:
        return {"digest": None}
    return {
        "digest": found.digest.hex(),
        "bits": _to_text(found.bits),
        "thumbnail": _to_text(found.thumbnail.astype(np.float16)),
    }


def decode_fingerprint(line: Mapping[str, Any]) -> Fingerprint | None:
    """Do the inverse of `encode_fingerprint`."""
    if line["digest"] is None:
        return None
    thumbnail = _from_text(line["thumbnail"], np.float16).astype(np.float32)
    bits = _from_text(line["bits"], np.uint64)
    return Fingerprint(bytes.fromhex(line["digest"]), bits, thumbnail)


def encode_measures(measures: NetworkMeasures) -> dict[str, Any]:
    """Return measures as plain JSON."""
    return {"doubt": _to_text(measures.doubt), "features": _to_text(measures.features)}


def decode_measures(line: Mapping[str, Any]) -> NetworkMeasures:
    """Do the inverse of `encode_measures`."""
    return NetworkMeasures(*(_from_text(line[key], np.float32) for key in ("doubt", "features")))


def _project(features: Floats) -> Floats:
    if len(features) <= FEATURES:
        return features
    matrix = np.random.default_rng(0).standard_normal((len(features), FEATURES))
    projected: Floats = (features @ matrix / np.sqrt(FEATURES)).astype(np.float32)
    return projected


def _stamp(image: Path) -> list[int] | None:
    try:
        stamp = file_stamp(image)
    except InputError:
        return None
    return [stamp.size, stamp.modified]


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []


def _to_text(values: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")


def _from_text(text: str, dtype: Any) -> NDArray[Any]:
    return np.frombuffer(base64.b64decode(text), dtype=dtype)
