"""Find labels that are likely wrong, with networks that have not seen them."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data import layouts
from pixelwise.data.dataset import Mask, SegmentationData
from pixelwise.data.dataset_spec import DatasetSpec
from pixelwise.data.source import Sample
from pixelwise.errors import InputError
from pixelwise.evaluation.logit_samples import PixelSampler
from pixelwise.file_io import write_text
from pixelwise.inference import Predictor
from pixelwise.overwriting import check_output, html_mark, json_mark
from pixelwise.process_settings import cores
from pixelwise.recipes.schema import Recipe
from pixelwise.study.folds import FoldsCallback, folds_folder, open_unseen, train_folds
from pixelwise.study.label_errors.evidence import (
    ClassThresholds,
    border_bands,
    fit_thresholds,
    weigh,
)
from pixelwise.study.label_errors.mispaired import Overview, find_mispaired, overview
from pixelwise.study.label_errors.page import Page, write_findings_page
from pixelwise.study.label_errors.predictions import SCALES
from pixelwise.study.label_errors.ranking import Estimate, estimate, is_certain, rank
from pixelwise.study.label_errors.regions import Kind, Region, find_regions
from pixelwise.study.label_errors.suggest import (
    check_files,
    check_suggestions,
    write_suggestions,
)

JSON = "label_errors.json"
PAGE = "label_errors.html"
COMMAND = "label-errors"
PAGE_WRITER = "label_errors"
MOST_KEPT = 20_000
"""The largest number of regions in memory, about."""
KEPT_BYTES = 1 << 30
"""Logits of a fold that are kept from the first pass; other images are predicted twice."""

_Logits = NDArray[np.float16]


@dataclass(frozen=True)
class LabelErrors:
    """Labels that are likely wrong.

    Attributes:
        root: The dataset.
        classes: Names of the classes.
        findings: The regions, the most suspicious first.
        estimate: How many of them are wrong.
        images: The images that were examined, with the network that has not seen each.
        page: The HTML page with the first findings.
    """

    root: Path
    classes: tuple[str, ...]
    findings: list[Region]
    estimate: Estimate
    images: dict[str, tuple[Sample, Path]]
    page: Path

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON: the estimate and all findings."""
        return {
            "data": str(self.root.resolve()),
            "images": len(self.images),
            "estimate": self.estimate.to_json(),
            "findings": [self._row(rank, f) for rank, f in enumerate(self.findings, 1)],
        }

    def _row(self, number: int, finding: Region) -> dict[str, Any]:
        sample = self.images[finding.image][0]
        row: dict[str, Any] = {
            "rank": number,
            "image": str(sample.image),
            "mask": str(sample.mask.path),
            "kind": finding.kind.value,
            "certain": is_certain(finding),
        }
        if finding.kind is Kind.MISPAIRED:
            other = self.images[finding.other][0] if finding.other else None
            return row | {"mask_of": None if other is None else str(other.image)}
        return row | {
            "labeled": self.classes[finding.labeled],
            "predicted": self.classes[finding.predicted],
            "pixels": finding.pixels,
            "box": list(finding.box),
            "evidence": round(finding.strength, 4),
            "surprise": round(finding.surprise, 4),
            "probability": round(finding.probability, 4),
        }


def find_label_errors(
    root: Path,
    out: Path,
    recipe: Recipe,
    *,
    folds: int = 4,
    run: Path | None = None,
    count: int = 200,
    suggest: Path | None = None,
    overwrite: bool = False,
    callback: FoldsCallback | None = None,
) -> LabelErrors:
    """Rank the regions of a dataset in which a network contradicts the label.

    For arguments and errors see `pixelwise.label_errors`; the recipe is that of the folds.
    """
    callback = callback or FoldsCallback()
    if suggest is not None:
        check_suggestions(root, suggest)
        if out.resolve().is_relative_to(suggest.resolve()):
            raise InputError(f"{suggest}: contains {out}: give a folder beside it with --suggest")
        if run is None and root.is_dir():  # before hours of training; an address is checked later
            settings = recipe.data
            check_files(layouts.read(root, DatasetSpec(settings.images, settings.masks)))
    with folds_folder(out, COMMAND):
        for name, mark in ((PAGE, html_mark(PAGE_WRITER)), (JSON, json_mark(COMMAND))):
            check_output(out / name, mark=mark, overwrite=overwrite)
        if run is None:
            bundles = train_folds(root, out, recipe, folds, callback=callback)
        else:
            bundles = [run / "best.safetensors" if run.is_dir() else run]
        collected = _Collected({}, {}, [])
        for number, bundle in enumerate(bundles, 1):
            callback.on_fold_predicting(number, len(bundles))
            predictor, data = open_unseen(
                bundle,
                root,
                same=run is None,
                scales=SCALES,
                progress=callback.on_dataset_progress,
            )
            if suggest is not None:
                check_files(data)
            _examine(bundle, predictor, data, collected, callback)
        mispaired = find_mispaired(list(collected.views.values()))
        findings = rank(collected.regions, collected.views, mispaired)
        result = LabelErrors(
            root,
            data.classes.names,
            findings,
            estimate(findings, list(collected.images)),
            collected.images,
            out / PAGE,
        )
        shown = findings[:count]
        page = Page(data, collected.images, shown, result.estimate, len(findings))
        write_findings_page(out / PAGE, page, progress=callback.on_validation_progress)
        marked = {"written_by": f"pixelwise {COMMAND}", **result.to_json()}
        write_text(out / JSON, json.dumps(marked, indent=1, allow_nan=False) + "\n")
        if suggest is not None:
            write_suggestions(suggest, data, collected.images, shown)
    return result


@dataclass
class _Collected:
    """What was found so far: the network of each image, its overview, and the regions."""

    images: dict[str, tuple[Sample, Path]]
    views: dict[str, Overview]
    regions: list[Region]


def _examine(
    bundle: Path,
    predictor: Predictor,
    data: SegmentationData,
    collected: _Collected,
    callback: FoldsCallback,
) -> None:
    """Find the regions of the val images of a network, and add them."""
    samples = data.splits["val"]
    total = 2 * len(samples)
    sampler = PixelSampler(len(data.classes), len(samples))
    bands: list[NDArray[np.intp]] = []
    kept: dict[str, _Logits] = {}
    free = KEPT_BYTES
    for done, sample in enumerate(samples, 1):
        image, labels = data.read(sample)
        logits = predictor.logits(image).astype(np.float16)
        places = sampler.add(sample.name, logits.astype(np.float32), labels)
        bands.append(border_bands(labels).reshape(-1)[places])
        free -= logits.nbytes
        if free >= 0:
            kept[sample.name] = logits
        callback.on_validation_progress(done, total)
    if not sampler.images:
        raise InputError(f"{data.root}: no pixel of its masks is labeled: label some images")
    thresholds = fit_thresholds(sampler.images, len(data.classes), bands)
    results = _regions_of(predictor, data, kept, thresholds)
    for done, (sample, (view, regions)) in enumerate(results, 1):
        collected.images[sample.name] = sample, bundle
        collected.views[sample.name] = view
        collected.regions += regions
        if len(collected.regions) > 2 * MOST_KEPT:
            collected.regions.sort(key=lambda region: -region.score)
            del collected.regions[MOST_KEPT:]
        callback.on_validation_progress(len(samples) + done, total)


def _regions_of(
    predictor: Predictor,
    data: SegmentationData,
    kept: dict[str, _Logits],
    thresholds: ClassThresholds,
) -> Iterator[tuple[Sample, tuple[Overview, list[Region]]]]:
    """Find the regions of the val images in order, in threads; a few images are in memory."""

    def find(sample: Sample, logits: _Logits, labels: Mask) -> tuple[Overview, list[Region]]:
        evidence = weigh(logits.astype(np.float32), labels, thresholds)
        view = overview(sample.name, labels, evidence.predicted, evidence.agreement)
        return view, find_regions(sample.name, evidence, thresholds)

    pending: deque[tuple[Sample, Future[tuple[Overview, list[Region]]]]] = deque()
    with ThreadPoolExecutor(cores()) as pool:
        for sample in data.splits["val"]:
            image, labels = data.read(sample)
            logits = kept.pop(sample.name, None)
            if logits is None:
                logits = predictor.logits(image).astype(np.float16)
            pending.append((sample, pool.submit(find, sample, logits, labels)))
            if len(pending) > cores():
                first, future = pending.popleft()
                yield first, future.result()
        for first, future in pending:
            yield first, future.result()
