"""Labels that are likely wrong: which regions are found, their kinds, and what is written."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

import pixelwise
from fixture_types import Cli
from pixelwise.data.classes import IGNORE
from pixelwise.data.dataset import open_dataset
from pixelwise.data.scenes import write_scenes
from pixelwise.errors import InputError
from pixelwise.evaluation.logit_samples import SampledLogits
from pixelwise.evaluation.open_splits import open_splits
from pixelwise.inference import Predictor
from pixelwise.study.label_errors.evidence import (
    BANDS,
    ClassThresholds,
    border_bands,
    fit_thresholds,
    weigh,
)
from pixelwise.study.label_errors.find import find_label_errors
from pixelwise.study.label_errors.mispaired import Overview, find_mispaired, overview
from pixelwise.study.label_errors.predictions import predict_again
from pixelwise.study.label_errors.ranking import estimate, rank
from pixelwise.study.label_errors.regions import Kind, Region, corrected, find_regions
from pixelwise.training import load_recipe, train
from planted_faults import plant_faults
from settings import TINY

SIZE = (60, 80)
OBJECTS = (2, 3)
CLASSES = 4
VOID = IGNORE
USUAL = np.linspace(0.5, 1, 1000, dtype=np.float32)
SUPPORTS = {(label, band): USUAL for label in range(CLASSES) for band in range(len(BANDS) + 1)}
THRESHOLDS = ClassThresholds(1.0, np.full(CLASSES, 0.9, np.float32), SUPPORTS)
KINDS = {
    "missing": {Kind.MISSING},
    "superfluous": {Kind.SUPERFLUOUS},
    "wrong-class": {Kind.WRONG_CLASS, Kind.MISSING},  # the class may be that of what is behind
    "border": {Kind.BORDER, Kind.SUPERFLUOUS, Kind.MISSING},  # it may be shifted as a whole
    "swapped": {Kind.MISPAIRED},
}

Mask = NDArray[np.uint8]


def make_mask(rng: np.random.Generator) -> Mask:
    """Ground and sky with three disks of two classes."""
    mask = np.zeros(SIZE, np.uint8)
    horizon = rng.integers(15, 45)
    mask[horizon:] = 1
    rows, columns = np.indices(SIZE)
    for value in (2, 3, 2):
        row, column, radius = rng.integers(8, 52), rng.integers(8, 72), rng.integers(5, 8)
        mask[(rows - row) ** 2 + (columns - column) ** 2 < radius**2] = value
    return mask


def make_logits(truth: Mask, rng: np.random.Generator) -> NDArray[np.float32]:
    """Logits of a good network: sure of the truth, but unsure and often wrong along borders."""
    one_hot = (truth == np.arange(CLASSES)[:, None, None]).astype(np.float32)
    blurred = ndimage.gaussian_filter(one_hot, (0, 1.0, 1.0))
    noisy = blurred + rng.normal(0, 0.05, blurred.shape)
    return (9 * noisy).astype(np.float32)


def examine(masks: dict[str, Mask], truth: dict[str, Mask]) -> list[Region]:
    """Rank the regions of masks by the predictions for the true masks."""
    rng = np.random.default_rng(1)
    regions: list[Region] = []
    views: dict[str, Overview] = {}
    for name, labels in masks.items():
        evidence = weigh(make_logits(truth[name], rng), labels, THRESHOLDS)
        views[name] = overview(name, labels, evidence.predicted, evidence.agreement)
        regions += find_regions(name, evidence, THRESHOLDS)
    return rank(regions, views, find_mispaired(list(views.values())))


@pytest.fixture(scope="module")
def truth() -> dict[str, Mask]:
    rng = np.random.default_rng(0)
    return {f"im_{i:03d}": make_mask(rng) for i in range(40)}


# --- What is found


def test_planted_faults_come_first_with_their_kinds(truth: dict[str, Mask]) -> None:
    planted, faults = plant_faults(
        truth, each=4, seed=3, objects=OBJECTS, void=CLASSES, least=40, most=1000
    )
    findings = examine(planted, truth)
    fault_of = {fault.name: fault for fault in faults}
    first = findings[: len(faults)]
    assert all(finding.image in fault_of for finding in first)
    for finding in first:
        assert finding.kind in KINDS[fault_of[finding.image].kind], finding
        if finding.kind is not Kind.MISPAIRED:
            changed = planted[finding.image] != truth[finding.image]
            assert changed[finding.window][finding.mask()].mean() > 0.5
    found = {finding.image for finding in findings[: 2 * len(faults)]}
    missed = Counter(fault.kind for fault in faults if fault.name not in found)
    assert missed.total() <= 2, missed
    estimated = estimate(findings, list(planted))
    assert estimated.low <= len(faults) <= estimated.high


@pytest.mark.parametrize("fault", ["dilated", "shifted"])
def test_a_loose_or_shifted_border_is_no_wrong_object(fault: str) -> None:
    truth = np.zeros(SIZE, np.uint8)
    truth[20:44, 20:50] = 2
    disk = truth == 2
    labels = np.zeros(SIZE, np.uint8)
    if fault == "dilated":
        labels[ndimage.binary_dilation(disk, iterations=5)] = 2
    else:
        labels[np.roll(disk, 7, axis=1)] = 2
    (first, *_) = examine({"x": labels}, {"x": truth})
    assert first.kind is Kind.BORDER


def test_a_swapped_pair_names_the_images_that_the_masks_fit(truth: dict[str, Mask]) -> None:
    masks = dict(truth)
    masks["im_003"], masks["im_017"] = truth["im_017"], truth["im_003"]
    found = {f.image: f.other for f in examine(masks, truth) if f.kind is Kind.MISPAIRED}
    # The mask that fits an image is that of its partner.
    assert found == {"im_003": "im_017", "im_017": "im_003"}


def test_right_labels_have_no_certain_finding(truth: dict[str, Mask]) -> None:
    found = examine(truth, truth)
    assert estimate(found, list(truth)).count == 0
    assert Kind.MISPAIRED not in {finding.kind for finding in found}


def test_thin_bands_come_after_an_object_of_the_same_evidence() -> None:
    labels = np.zeros(SIZE, np.uint8)
    predicted = labels.copy()
    predicted[10:12, 5:55] = 2  # 100 pixels in a band
    predicted[30:40, 30:40] = 2  # 100 pixels in a square
    logits = 5 * (predicted == np.arange(CLASSES)[:, None, None]).astype(np.float32)
    regions = find_regions("x", weigh(logits, labels, THRESHOLDS), THRESHOLDS)
    assert [region.box for region in regions] == [(30, 30, 40, 40), (10, 5, 12, 55)]


def test_ignored_pixels_are_no_finding() -> None:
    labels = np.full(SIZE, IGNORE, np.uint8)
    labels[:5] = 0
    logits = np.zeros((CLASSES, *SIZE), np.float32)
    logits[0, :5] = logits[2, 5:] = 9
    evidence = weigh(logits, labels, THRESHOLDS)
    assert find_regions("x", evidence, THRESHOLDS) == []
    assert evidence.agreement == 1


def make_region(image: str, labeled: int, predicted: int, score: float, **values: Any) -> Region:
    settings = {"strength": 5.0, "surprise": 5.0, "probability": 0.99, "confident": True, **values}
    box = (0, 0, 4, 4)
    return Region(image, Kind.BORDER, labeled, predicted, 16, box, score=score, **settings)


def test_classes_that_are_always_confused_do_not_fill_the_list() -> None:
    confused = [make_region(f"a{i}", 0, 1, 10.0) for i in range(50)]
    rare = [make_region(f"b{i}", 2, 3, 8.0) for i in range(2)]
    first = rank([*confused, *rare], {}, {})[:4]
    assert {region.image for region in first} >= {"b0", "b1"}


def test_the_estimate_counts_certain_findings_and_its_interval_is_over_images() -> None:
    certain = [make_region(f"a{i}", 0, 1, 1.0) for i in range(10)]
    unsure = [
        make_region("b", 0, 1, 1.0, strength=1.5),
        make_region("c", 0, 1, 1.0, confident=False),
        make_region("d", 0, 1, 1.0, surprise=2.5),
    ]
    images = [f"a{i}" for i in range(10)] + ["b", "c", "d"] + [f"e{i}" for i in range(27)]
    result = estimate([*certain, *unsure], images)
    assert result.count == 10
    assert 3 <= result.low < 10 < result.high <= 17  # binomial: 10 +- 2 x 2.7
    gathered = [make_region("a0", 0, 1, 1.0) for _ in range(10)]
    assert estimate(gathered, images).low == 0  # all in one image


def test_the_temperature_and_the_thresholds_are_those_of_the_samples() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20_000, 3)).astype(np.float32)
    weights = np.exp(logits)
    weights /= weights.sum(axis=1, keepdims=True)
    drawn = (rng.random((20_000, 1)) > weights.cumsum(axis=1)).sum(axis=1).clip(0, 2)
    images = [SampledLogits("x", 2.5 * logits, drawn.astype(np.uint8), 0.0)]
    bands = np.arange(20_000) % 2
    fitted = fit_thresholds(images, 4, [bands])
    assert fitted.temperature == pytest.approx(2.5, rel=0.05)
    expected = [weights[drawn == c, c].mean() for c in range(3)]
    assert fitted.confidence[:3] == pytest.approx(expected, rel=0.02)
    assert fitted.confidence[3] == 1  # it has no label
    expected = np.sort(weights[(drawn == 2) & (bands == 1), 2])
    assert fitted.supports[2, 1] == pytest.approx(expected, rel=0.1)
    assert len(fitted.supports[3, 0]) == 0


def test_a_contradiction_counts_less_where_the_network_often_contradicts() -> None:
    labels = np.zeros(SIZE, np.uint8)
    labels[10:22, 10:22], labels[10:22, 50:62] = 2, 3
    logits = np.zeros((CLASSES, *SIZE), np.float32)
    logits[0] = 5  # neither object is seen
    seldom, often = np.linspace(0.5, 1, 1000), np.linspace(0, 0.2, 1000)
    supports = {(label, band): seldom for label in range(3) for band in range(len(BANDS) + 1)}
    supports |= {(3, band): often for band in range(len(BANDS) + 1)}
    usual = ClassThresholds(1.0, np.full(CLASSES, 0.9, np.float32), supports)
    evidence = weigh(logits, labels, usual)
    assert evidence.strength[15, 15] == evidence.strength[15, 55] == 5
    assert evidence.surprise[15, 15] == pytest.approx(np.log(1003 / 3))
    as_little = np.searchsorted(often, np.exp(-5) / (1 + 3 * np.exp(-5)))
    assert evidence.surprise[15, 55] == pytest.approx(-np.log((as_little + 3) / 1003))
    assert evidence.surprise[40, 40] == 0  # they agree
    assert [region.labeled for region in find_regions("x", evidence, usual)] == [2, 3]


def test_bands_follow_the_distance_to_another_label() -> None:
    labels = np.zeros((4, 60), np.uint8)
    labels[:, 30:] = 1
    distances = np.abs(np.arange(60) - 29.5) + 0.5  # 1 at the border
    assert (border_bands(labels) == np.digitize(distances, BANDS)).all()
    assert (border_bands(labels.T) == border_bands(labels).T).all()
    assert (border_bands(np.zeros((3, 3), np.uint8)) == len(BANDS)).all()


def test_a_correction_changes_nothing_outside_the_region() -> None:
    labels = np.zeros(SIZE, np.uint8)
    labels[20, 20] = IGNORE
    predicted = np.full(SIZE, 2, np.uint8)
    region = make_region("x", 0, 2, 1.0, bits=np.packbits(np.ones((4, 4), bool)).tobytes())
    region = Region(**{**vars(region), "box": (18, 18, 22, 22)})
    new = corrected(labels, predicted, region)
    assert (new == 2).sum() == 15
    assert new[20, 20] == IGNORE
    assert (labels == 2).sum() == 0


# --- What is written


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with scenes and a run of an (almost untrained) network."""
    folder = tmp_path_factory.mktemp("study")
    write_scenes(folder / "scenes", train=3, val=3, height=32, width=48)
    settings = {**TINY, "kernels": "plain", "epochs": 1, "batch_size": 2, "data.workers": 0}
    train(folder / "scenes", folder / "run", load_recipe(None, settings))
    return folder


def test_page_json_and_suggestions_agree(study: Path, tmp_path: Path) -> None:
    result = find_label_errors(
        study / "scenes",
        tmp_path / "o",
        load_recipe(None, {}),
        run=study / "run",
        count=5,
        suggest=tmp_path / "new",
    )
    assert result.findings
    written = json.loads((tmp_path / "o/label_errors.json").read_text())
    assert written["images"] == 3
    rows = written["findings"]
    assert [row["rank"] for row in rows] == [*range(1, len(result.findings) + 1)]
    page = (tmp_path / "o/label_errors.html").read_text()
    assert page.count('<article class="finding"') == min(5, len(rows))
    assert "http://" not in page
    assert "https://" not in page
    suggested = open_dataset(tmp_path / "new", draw_val=False)
    original = open_dataset(study / "scenes", splits=("val",))
    samples = {s.image.stem: s for s in original.splits["val"]}
    shown = {Path(row["image"]).stem for row in rows[:5]}
    assert {s.image.stem for s in suggested.splits["all"]} == shown
    for sample in suggested.splits["all"]:
        image, mask = suggested.read(sample)
        old_image, old = original.read(samples[sample.image.stem])
        assert (image == old_image).all()
        allowed = np.zeros(old.shape, bool)
        for finding in result.findings[:5]:
            if Path(finding.image).name == sample.image.stem:
                whole = finding.kind is Kind.MISPAIRED
                window = np.s_[:, :] if whole else finding.window
                allowed[window] |= True if whole else finding.mask()
        assert not (mask != old)[~allowed].any()
        assert (mask != old)[allowed].any()


def test_regions_are_where_the_shown_prediction_contradicts_the_label(
    study: Path, tmp_path: Path
) -> None:
    recipe = load_recipe(None, {})
    result = find_label_errors(study / "scenes", tmp_path / "o", recipe, run=study / "run")
    data = open_dataset(study / "scenes", splits=("val",))
    shown = {each.sample.name: each for each in predict_again(result.images, data, result.images)}
    for finding in result.findings:
        predicted = shown[finding.image].predicted[finding.window][finding.mask()]
        labels = shown[finding.image].labels[finding.window][finding.mask()]
        assert (predicted != labels).mean() > 0.99  # logits are rounded to 16 bits between
    sample = shown[result.findings[0].image]
    upsampled = pixelwise.load(study / "run/best.safetensors", runtime="torch", scales=(1, 1.5))
    assert (upsampled.predict_labels(sample.image) == sample.predicted).all()
    plain = pixelwise.load(study / "run/best.safetensors", runtime="torch")
    assert (plain.predict_labels(sample.image) != sample.predicted).any()


def test_files_of_others_and_full_folders_are_not_touched(study: Path, tmp_path: Path) -> None:
    def call(**arguments: Any) -> None:
        recipe = load_recipe(None, {})
        find_label_errors(study / "scenes", tmp_path / "o", recipe, run=study / "run", **arguments)

    for name in ("label_errors.html", "label_errors.json"):
        (tmp_path / "o").mkdir(exist_ok=True)
        (tmp_path / "o" / name).write_text("mine")
        with pytest.raises(InputError, match="was not written by this command"):
            call()
        assert (tmp_path / "o" / name).read_text() == "mine"
        (tmp_path / "o" / name).unlink()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").write_text("mine")
    with pytest.raises(InputError, match="is not empty"):
        call(suggest=tmp_path / "full")
    with pytest.raises(InputError, match="is inside"):
        call(suggest=study / "scenes/new")
    with pytest.raises(InputError, match=f"contains {tmp_path / 'o'}"):
        call(suggest=tmp_path / "o")


def test_commands_share_the_folds_and_refuse_contradictions(
    study: Path, tmp_path: Path, cli: Cli
) -> None:
    settings = ["--set", "model.options.backbone=tiny", "--set", "model.weights=none"]
    arguments = [
        study / "scenes",
        "--out",
        tmp_path / "o",
        "--folds",
        "2",
        "--epochs",
        "1",
        *settings,
    ]
    assert cli("cross-validate", *arguments).code == 0
    bundles = sorted((tmp_path / "o").glob("fold-*/last.safetensors"))
    before = [(path, path.stat().st_mtime_ns) for path in bundles]
    result = cli("label-errors", *arguments)
    assert result.code == 0, result.err
    assert "in 6 images" in result.out
    assert [(path, path.stat().st_mtime_ns) for path in bundles] == before
    result = cli(
        "label-errors", study / "scenes", "--run", study / "run", "--out", "o", "--folds", "3"
    )
    assert result.code == 2
    assert result.err.strip().endswith("is trained already: omit --folds")


def test_images_that_the_network_has_seen_are_not_examined(study: Path, tmp_path: Path) -> None:
    """A drawn val is another one once images were added: the run knows what it was trained on."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "best.safetensors").write_bytes((study / "run/best.safetensors").read_bytes())
    written = json.loads((study / "run/data.json").read_text())
    seen = written["splits"]["val"].pop()
    written["splits"]["train"].append(seen)
    (run / "data.json").write_text(json.dumps(written))
    with pytest.raises(
        InputError, match=f"trained on 1 of the images of val, such as {seen['name']}"
    ):
        find_label_errors(study / "scenes", tmp_path / "o", load_recipe(None, {}), run=run)
    for bundle, count in ((run, 1), (study / "run", 0)):
        predictor = Predictor.load(bundle / "best.safetensors", runtime="torch")
        notes = open_splits(predictor, study / "scenes", "val").notes
        assert sum("the scores are too high" in note for note in notes) == count


def test_a_network_of_other_classes_is_refused(study: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    for folder in ("images/train", "images/val", "masks/train", "masks/val"):
        (other / folder).mkdir(parents=True)
    for split in ("train", "val"):
        pixels = np.zeros((16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(other / "images" / split / "a.png")
        Image.fromarray(pixels[..., 0]).save(other / "masks" / split / "a.png")
    (other / "classes.toml").write_text('[[class]]\nname = "x"\nvalue = 0\n')
    with pytest.raises(InputError, match="the dataset's classes are x"):
        find_label_errors(other, tmp_path / "o", load_recipe(None, {}), run=study / "run")
