"""int8 by NNCF, kept only where it costs little and gains time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pixelwise.data.dataset import SegmentationData
from pixelwise.data.source import Sample
from pixelwise.errors import InputError, PixelwiseError
from pixelwise.evaluation import ConfusionMatrix, evaluate
from pixelwise.export.format_writers import require
from pixelwise.export.nncf_formats import FORMATS, ModelFormat
from pixelwise.inference import Predictor
from pixelwise.inference.export_manifest import ExportManifest
from pixelwise.inference.runtimes import Runtime, open_export

SPEED_REPEATS = 7
RANKED_ON = 25  # images on which the layers are ranked


@dataclass(frozen=True)
class Int8Settings:
    """max_drop: points (0..100) of mean IoU on val that int8 may cost. calibration: how many
    images of train show the ranges of the activations."""

    max_drop: float = 0.3
    calibration: int = 100

    def __post_init__(self) -> None:
        if not 0 <= self.max_drop <= 100:
            raise InputError(f"max drop {self.max_drop}: allowed are 0 to 100 points of mean IoU")
        if self.calibration < 1:
            raise InputError(f"calibration {self.calibration}: at least 1 image")


@dataclass(frozen=True)
class Quantized:
    """The model's file, and what was measured."""

    file: str
    checks: dict[str, Any]


def require_nncf() -> None:
    """Raise InputError, with the remedy, where NNCF is not installed."""
    require(("nncf",), what="int8")


def quantize(
    exact: ExportManifest,
    folder: Path,
    data: SegmentationData,
    settings: Int8Settings,
    *,
    describe: Callable[[Path, str, str, dict[str, object]], ExportManifest],
    say: Callable[[str], None],
) -> Quantized:
    """Quantize the float32 export `exact` into `folder`.

    First all layers. Where that costs more than the limit, what rounding does to the means is
    corrected layer by layer, which takes longer, and which not every format allows; where that is
    not enough, the layers that cost most go back to float32 until the limit holds.

    Raises PixelwiseError where it never does, or where the result is not faster.
    """
    import nncf

    model_format = FORMATS[exact.target]
    model = model_format.read(exact.path)
    images = _spread(data.splits["train"], settings.calibration)
    calibration = nncf.Dataset(images, lambda sample: _batch(data, sample))
    options: dict[str, Any] = {
        "preset": nncf.QuantizationPreset.MIXED,
        "subset_size": len(images),
    }

    say("scoring float32")
    float_runtime = open_export(exact)
    before = _score(float_runtime, exact, data)

    def written(quantized: Any) -> tuple[ExportManifest, float]:
        made = describe(folder, model_format.write(quantized, folder), "int8", {})
        say("scoring int8")
        return made, _score(open_export(made), made, data)

    say(f"quantizing with {len(images)} images")
    quantized = nncf.quantize(model, calibration, **options)
    made, after = written(quantized)
    if before - after > settings.max_drop and model_format.corrects_in_full:
        say(f"it costs {before - after:.2f} points: correcting the biases in full")
        quantized = nncf.quantize(model, calibration, fast_bias_correction=False, **options)
        made, after = written(quantized)
    if before - after > settings.max_drop:
        say(f"it costs {before - after:.2f} points: looking for the layers that cost most")
        quantized = nncf.quantize_with_accuracy_control(
            model,
            calibration,
            nncf.Dataset(data.splits["val"], lambda sample: _batch(data, sample)),
            validation_fn=_validation(model_format, data),
            max_drop=settings.max_drop / 100,
            drop_type=nncf.DropType.ABSOLUTE,
            advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
                ranking_subset_size=RANKED_ON
            ),
            **options,
        )
        made, after = written(quantized)
    kept = model_format.float_layers(quantized)
    checks: dict[str, Any] = {
        "val mean IoU": {"float32": round(before, 3), "int8": round(after, 3)},
        "max drop": settings.max_drop,
        "calibration images": len(images),
        "layers in float32": kept,
    }
    if before - after > settings.max_drop:
        raise PixelwiseError(
            f"int8 costs {before - after:.2f} points of mean IoU on val ({before:.2f} to "
            f"{after:.2f}), {settings.max_drop:g} are allowed, even with {len(kept)} layers in "
            "float32: not written; --max-drop allows more"
        )
    say("measuring the speed")
    exact_ms, int8_ms = _speed(float_runtime, open_export(made), data)
    checks["milliseconds"] = {"float32": round(exact_ms, 2), "int8": round(int8_ms, 2)}
    if int8_ms >= exact_ms:
        raise PixelwiseError(
            f"int8 takes {int8_ms:.1f} ms an image and float32 {exact_ms:.1f} ms on this machine: "
            "not written, since it gains nothing here"
        )
    return Quantized(made.file, checks)


def _spread(samples: list[Sample], count: int) -> list[Sample]:
    """Up to `count` of the samples, evenly over all of them."""
    places = np.linspace(0, len(samples) - 1, min(count, len(samples))).round().astype(int)
    return [samples[i] for i in sorted(set(places.tolist()))]


def _batch(data: SegmentationData, sample: Sample) -> dict[str, Any]:
    return {"image": data.read(sample)[0][None]}


def _score(runtime: Runtime, export: ExportManifest, data: SegmentationData) -> float:
    """Mean IoU on val, in points."""
    predictor = Predictor(runtime, export.classes, pixels=export.pixels)
    return 100 * evaluate(predictor, data, "val").scores.mean_iou


def _validation(
    model_format: ModelFormat, data: SegmentationData
) -> Callable[[Any, Iterable[Any]], tuple[float, list[float]]]:
    """What NNCF calls with a model and samples: the mean IoU (0..1), and that of each image."""

    def validate(model: Any, samples: Iterable[Any]) -> tuple[float, list[float]]:
        run = model_format.runner(model)
        matrix, each = ConfusionMatrix(len(data.classes)), []
        for sample in samples:
            image, truth = data.read(sample)
            own = ConfusionMatrix(len(data.classes))
            own.update(truth, run(image))
            matrix.counts += own.counts
            score = own.scores().mean_iou
            each.append(0.0 if np.isnan(score) else score)
        return matrix.scores().mean_iou, each

    return validate


def _speed(one: Runtime, other: Runtime, data: SegmentationData) -> tuple[float, float]:
    """Milliseconds of each on one image of val, taking turns; medians."""
    image = data.read(data.splits["val"][0])[0]
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(SPEED_REPEATS + 1):
        for runtime, own in zip((one, other), times, strict=True):
            began = time.perf_counter()
            runtime.classify(image)
            if repeat:  # the first one compiles
                own.append(1000 * (time.perf_counter() - began))
    return statistics.median(times[0]), statistics.median(times[1])
