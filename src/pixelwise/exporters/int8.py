"""Quantize an export to int8 with NNCF, provided that it loses little accuracy."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pixelwise.data.dataset import SegmentationData
from pixelwise.data.source import Sample
from pixelwise.errors import InputError, PixelwiseError
from pixelwise.evaluation import ConfusionMatrix, evaluate
from pixelwise.evaluation.crf_search import evenly_spaced
from pixelwise.exporters.formats import QuantizableFormat, load_format
from pixelwise.inference import Predictor
from pixelwise.inference.export_manifest import ExportManifest
from pixelwise.inference.runtimes import Runtime, open_export

SPEED_REPEATS = 7
RANKING_IMAGES = 25  # images on which layers are ranked by their effect on the accuracy


@dataclass(frozen=True)
class Int8Settings:
    """Settings of int8 quantization.

    Args:
        max_drop: Points of validation mean IoU that int8 may lose, 0 to 100.
        calibration: Number of training images on which the ranges of activations are measured.

    Raises:
        InputError: If a value is out of range.
    """

    max_drop: float = 0.3
    calibration: int = 100

    def __post_init__(self) -> None:
        if not 0 <= self.max_drop <= 100:
            raise InputError(f"max drop {self.max_drop}: must be 0 to 100 points of mean IoU")
        if self.calibration < 1:
            raise InputError(f"calibration {self.calibration}: must be at least 1 image")


def quantize(
    float_export: ExportManifest,
    folder: Path,
    data: SegmentationData,
    settings: Int8Settings,
    *,
    describe: Callable[[Path, str, str, dict[str, object]], ExportManifest],
    progress: Callable[[str], None],
) -> None:
    """Quantize a float32 export, with as many layers in int8 as `max_drop` allows.

    The speed on this machine is measured, but does not matter: the export may be for another one,
    and the runtime "auto" measures again where it predicts.

    Args:
        float_export: The float32 export.
        folder: Folder for the quantized model.
        data: Calibration images (train) and images for scoring (val).
        settings: Limit of the drop in mean IoU, and number of calibration images.
        describe: Writes the manifest of a folder, given file name, precision and checks.
        progress: Called with a line of text at each stage.

    Raises:
        PixelwiseError: If the result loses too much accuracy.
    """
    export_format = load_format(float_export.target)
    assert isinstance(export_format, QuantizableFormat)
    images = evenly_spaced(data.splits["train"], settings.calibration)
    progress("scoring float32")
    float_runtime = open_export(float_export)
    float_score = _score(float_runtime, float_export, data)
    stage_prefix = ""
    for stage, quantize_model in _attempts(
        export_format, float_export.path, data, images, settings
    ):
        progress(stage_prefix + stage)
        model = quantize_model()
        manifest = describe(folder, export_format.save(model, folder), "int8", {})
        progress("scoring int8")
        int8_score = _score(open_export(manifest), manifest, data)
        drop = float_score - int8_score
        if drop <= settings.max_drop:
            break
        stage_prefix = f"int8 loses {drop:.2f} points of mean IoU: "
    float_layers = export_format.float_layers(model)
    if drop > settings.max_drop:
        raise PixelwiseError(
            f"{float_export.model}: int8 loses {drop:.2f} points of mean IoU on val "
            f"({float_score:.2f} to {int8_score:.2f}) even with {len(float_layers)} layers in "
            f"float32, but only {settings.max_drop:g} are allowed: nothing was written; --max-drop "
            "allows more"
        )
    progress("measuring the speed")
    float_ms, int8_ms = _speed(float_runtime, open_export(manifest), data)
    checks: dict[str, object] = {
        "val mean IoU": {"float32": round(float_score, 3), "int8": round(int8_score, 3)},
        "max drop": settings.max_drop,
        "calibration images": len(images),
        "layers in float32": float_layers,
        "milliseconds": {"float32": round(float_ms, 2), "int8": round(int8_ms, 2)},
    }
    describe(folder, manifest.file, "int8", checks)


def _attempts(
    export_format: QuantizableFormat,
    path: Path,
    data: SegmentationData,
    images: list[Sample],
    settings: Int8Settings,
) -> list[tuple[str, Callable[[], Any]]]:
    """Return descriptions and functions of the attempts to quantize a model, in their order.

    The first attempt quantizes all layers. If that loses more accuracy than allowed, the second one
    also corrects the biases of all layers, which takes longer and is not possible in every format.
    The last one keeps the layers that lose most in float32 until the limit holds.
    """
    import nncf

    calibration, validation = (
        nncf.Dataset(samples, lambda sample: {"image": data.read(sample)[0][None]})
        for samples in (images, data.splits["val"])
    )
    arguments = (export_format.read(path), calibration)
    options = {"preset": nncf.QuantizationPreset.MIXED, "subset_size": len(images)}
    quantize_all = partial(nncf.quantize, *arguments, **options)
    attempts = [(f"quantizing with {len(images)} images", quantize_all)]
    if export_format.corrects_all_biases:
        correct_biases = partial(quantize_all, fast_bias_correction=False)
        attempts.append(("correcting the biases of all layers", correct_biases))
    keep_float_layers = partial(
        nncf.quantize_with_accuracy_control,
        *arguments,
        validation,
        validation_fn=_validation(export_format, data),
        max_drop=settings.max_drop / 100,
        drop_type=nncf.DropType.ABSOLUTE,
        advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
            ranking_subset_size=RANKING_IMAGES
        ),
        **options,
    )
    return [*attempts, ("searching for the layers that lose most", keep_float_layers)]


def _score(runtime: Runtime, export: ExportManifest, data: SegmentationData) -> float:
    """Return the mean IoU on val, in points."""
    predictor = Predictor(runtime, export.classes, pixels=export.pixels)
    return 100 * evaluate(predictor, data, "val").scores.mean_iou


def _validation(
    export_format: QuantizableFormat, data: SegmentationData
) -> Callable[[Any, Iterable[Any]], tuple[float, list[float]]]:
    """Return the function with which NNCF scores a model on samples.

    It returns the mean IoU over all samples and that of each sample, in 0..1.
    """

    def validate(model: Any, samples: Iterable[Any]) -> tuple[float, list[float]]:
        classify = export_format.classifier(model)
        total, scores = ConfusionMatrix(len(data.classes)), []
        for sample in samples:
            image, mask = data.read(sample)
            matrix = ConfusionMatrix(len(data.classes))
            matrix.update(mask, classify(image))
            total.counts += matrix.counts
            score = matrix.scores().mean_iou
            scores.append(0.0 if np.isnan(score) else score)
        return total.scores().mean_iou, scores

    return validate


def _speed(
    float_runtime: Runtime, int8_runtime: Runtime, data: SegmentationData
) -> tuple[float, float]:
    """Return the median milliseconds of both runtimes for an image of val, measured in turns."""
    image = data.read(data.splits["val"][0])[0]
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(SPEED_REPEATS + 1):
        for runtime, own in zip((float_runtime, int8_runtime), times, strict=True):
            started = time.perf_counter()
            runtime.predict_labels(image)
            if repeat:  # the first call compiles
                own.append(1000 * (time.perf_counter() - started))
    return statistics.median(times[0]), statistics.median(times[1])
