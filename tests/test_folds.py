"""Groups and folds: what stays together, what each part holds, and out-of-fold scores."""

from __future__ import annotations

import json
import random
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fixture_types import Cli
from pixelwise.data.dataset import SegmentationData, open_dataset
from pixelwise.data.folds import assign_folds
from pixelwise.data.groups import group_images, suggested_group
from pixelwise.data.scenes import write_scenes
from pixelwise.data.source import MaskFile, Sample
from pixelwise.doctor import examine
from pixelwise.errors import InputError
from pixelwise.evaluation import evaluate
from pixelwise.evaluation.bootstrap import score_intervals
from pixelwise.evaluation.open_splits import open_splits
from pixelwise.inference import Predictor
from pixelwise.planning.training_data import open_training_data
from pixelwise.recipes.schema import Recipe
from pixelwise.study.cross_validate import CrossValidation, cross_validate
from pixelwise.study.folds import FoldsCallback
from pixelwise.training import load_recipe, train
from pixelwise.weights.bundle import Bundle
from settings import TINY


def recipe(**overrides: Any) -> Recipe:
    settings = {**TINY, "kernels": "plain", "epochs": 2, "batch_size": 2, "data.workers": 0}
    return load_recipe(None, settings | overrides)


def write_grouped(root: Path, names: Mapping[str, list[int]]) -> Path:
    """Write images NAME_INDEX of 16 x 16 pixels; their masks hold the given class values."""
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        for name in names:
            (root / folder / name).parent.mkdir(parents=True, exist_ok=True)
    for name, values in names.items():
        image = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(image).save(root / "images" / f"{name}.png")
        mask = np.resize(np.array(values, np.uint8), (16, 16))
        Image.fromarray(mask).save(root / "masks" / f"{name}.png")
    return root


def patients(root: Path, *, count: int = 6, views: int = 3) -> Path:
    named = {f"patient{p}_{v:02d}": [0, 1] for p in range(count) for v in range(views)}
    return write_grouped(root, named)


def stems(data: SegmentationData, split: str) -> set[str]:
    return {sample.image.stem for sample in data.splits[split]}


# --- Groups


def make_samples(*names: str) -> list[Sample]:
    return [Sample(name, Path("d", f"{name}.png"), MaskFile(Path("m"))) for name in names]


@pytest.mark.parametrize(
    ("rule", "names", "groups"),
    [
        ("{group}_*", ["images/a_1", "images/b_1_2"], ["a", "b"]),
        ("*_{group}_*", ["images/x_a_1", "images/y_b_1"], ["a", "b"]),
        ("{group}/*", ["p1/x", "p2/x"], ["p1", "p2"]),
        ("{group}/*/*", ["p1/scan/x", "p2/scan/x"], ["p1", "p2"]),
        ("folder", ["p1/x", "p2/x"], ["d/p1", "d/p2"]),
        ("folder", ["train/p1/x", "val/p1/x", "val/p2/x"], ["d/p1", "d/p1", "d/p2"]),
        ("scan[{group}]*", ["scan[1]a", "scan[2]a"], ["1", "2"]),  # brackets are literal
    ],
)
def test_a_rule_names_the_group_of_each_image(
    rule: str, names: list[str], groups: list[str]
) -> None:
    assert group_images(Path("d"), make_samples(*names), rule) == groups


def test_a_table_names_the_group_of_each_image(tmp_path: Path) -> None:
    root = patients(tmp_path / "data", count=2, views=1)
    (root / "groups.csv").write_text(
        "image,field,camera\npatient1_00.png,north,x\npatient0_00,south,y\n"
    )
    samples = [s for part in open_dataset(root).splits.values() for s in part]
    samples.sort(key=lambda sample: sample.name)
    assert group_images(root, samples, "groups.csv:field") == ["south", "north"]
    for rule, message in (
        ("groups.csv:patient", "no column 'patient' .* its columns are image, field, camera"),
        ("other.csv:field", "there is no file other.csv"),
    ):
        with pytest.raises(InputError, match=message):
            group_images(root, samples, rule)
    (root / "groups.csv").write_text("image,field\npatient0_00,south\n")
    with pytest.raises(InputError, match=r"patient1_00.png: is not in .*groups.csv"):
        group_images(root, samples, "groups.csv:field")


def grouped_by_table(root: Path, text: str) -> list[str]:
    (root / "groups.csv").write_text(text, encoding="utf-8")
    samples = [s for part in open_dataset(root, draw_val=False).splits.values() for s in part]
    samples.sort(key=lambda sample: sample.name)
    return group_images(root, samples, "groups.csv:field")


def test_tables_of_spreadsheets_are_read(tmp_path: Path) -> None:
    root = patients(tmp_path / "data", count=2, views=1)
    for separator in (";", "\t", " , "):
        lines = ["image,note,field", 'patient0_00,"x",north ', "patient1_00,,south"]
        text = "\ufeff" + "\r\n".join(lines).replace(",", separator)
        assert grouped_by_table(root, text) == ["north", "south"]
    for text, message in (
        (f"image,field\n{'x' * 200_000},north\n", "line 2: cannot be read"),
        ("image,field,field\npatient0_00,north,south\n", "has several columns 'field'"),
    ):
        with pytest.raises(InputError, match=message) as error:
            grouped_by_table(root, text)
        assert len(str(error.value).splitlines()) == 1


def test_a_line_of_a_table_names_one_image(tmp_path: Path) -> None:
    """Its folder decides among images of one name, and lines of images that are elsewhere count
    for no other image."""
    root = tmp_path / "data"
    for folder in ("images/p1", "images/p2", "masks/p1", "masks/p2"):
        (root / folder).mkdir(parents=True)
        Image.fromarray(np.eye(16, dtype=np.uint8)).save(root / folder / "0.png")
    lines = ["p9/0.png,c", "D:\\scans\\p1\\0.png,a", "p2/0.png,b", "p8/0.png,d"]
    assert grouped_by_table(root, "\n".join(["image,field", *lines])) == ["a", "b"]
    with pytest.raises(InputError, match=r"line 2: 0.png can be .*p1/0.png or .*p2/0.png"):
        grouped_by_table(root, "image,field\n0.png,a\n")


@pytest.mark.parametrize("rule", ["{group}_*", "{group}/*", "folder", "m\u00fc/{group}_*"])
def test_names_in_another_unicode_form_are_of_one_group(rule: str) -> None:
    forms = [unicodedata.normalize(form, "m\u00fc") for form in ("NFC", "NFD")]
    samples = [
        Sample(f"{forms[0]}/{number}", Path(form, f"{form}_{number}.png"), MaskFile(Path("m")))
        for number, form in enumerate(forms)
    ]
    assert len({*group_images(Path("d"), samples, rule)}) == 1


@pytest.mark.parametrize("rule", ["patient", "{group}_{group}", ""])
def test_a_rule_of_another_form_is_refused(rule: str) -> None:
    with pytest.raises(InputError, match="allowed are a pattern such as"):
        group_images(Path("d"), make_samples("a_1"), rule)


def test_images_that_do_not_fit_the_pattern_are_reported_together() -> None:
    samples = make_samples("a_1", "b", "c", "d", "e")
    with pytest.raises(InputError, match="does not fit the group_by pattern") as error:
        group_images(Path("d"), samples, "{group}_*")
    assert len(error.value.problems) == 4
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("0016E5_07959", "0016E5"),
        ("0006R0_f00930", "0006R0"),
        ("patient12_slice007", "patient12"),
        ("p03-07", "p03"),
        ("img_0001", ""),
        ("000001", ""),
        ("2007_000027", ""),  # a year
        ("leaf", ""),
    ],
)
def test_names_suggest_groups(name: str, group: str) -> None:
    assert suggested_group(make_samples(name)[0]) == group


def test_a_drawn_val_split_keeps_groups_together(tmp_path: Path) -> None:
    root = patients(tmp_path, count=6, views=3)
    for seed in range(5):
        data = open_dataset(root, group_by="{group}_*", seed=seed)
        parts = [{stem.split("_")[0] for stem in stems(data, s)} for s in ("train", "val")]
        assert not parts[0] & parts[1]
        assert len(stems(data, "val")) == 3  # 20 % of 18 images are 3.6: one whole patient
    with pytest.raises(InputError, match="all 18 images are of the group 'tien'"):
        open_dataset(root, group_by="pa{group}t*")


# --- Folds


def test_folds_have_equal_sizes_and_classes_and_never_cut_a_group() -> None:
    rng = random.Random(0)
    groups = [f"g{rng.randrange(40)}" for _ in range(200)]
    counts = np.array([[1, rng.random() < 0.5, rng.random() < 0.1] for _ in groups], np.int64)
    folds = assign_folds(groups, counts, 5, seed=0)
    for group in set(groups):
        assert len({fold for fold, own in zip(folds, groups, strict=True) if own == group}) == 1
    assert np.bincount(folds).min() >= 36
    assert np.bincount(folds).max() <= 44
    rare = np.bincount(folds[counts[:, 2] > 0], minlength=5)
    assert rare.max() - rare.min() <= 2
    assert (assign_folds(groups, counts, 5, seed=0) == folds).all()


def test_every_fold_has_a_group_even_if_one_group_is_large() -> None:
    groups = ["big"] * 50 + ["a", "b", "c"]
    folds = assign_folds(groups, np.ones((53, 1), np.int64), 4, seed=3)
    assert sorted(np.bincount(folds)) == [1, 1, 1, 50]


def test_folds_divide_train_and_val_and_leave_the_test_split_apart(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "scenes", train=5, val=2, test=2, height=32, width=48)
    whole = open_dataset(root)
    seen: list[str] = []
    for number in (1, 2, 3):
        data = open_dataset(root, fold=f"{number}/3")
        val = [sample.name for sample in data.splits["val"]]
        train = [sample.name for sample in data.splits["train"]]
        assert not {*val} & {*train}
        assert len(val) + len(train) == 7
        assert data.splits["test"] == whole.splits["test"]
        only = open_dataset(root, fold=f"{number}/3", splits=("val",))
        assert [sample.name for sample in only.splits["val"]] == val
        assert (only.pixel_counts["val"] == data.pixel_counts["val"]).all()
        seen += val
    assert len(seen) == len({*seen}) == 7
    assert open_dataset(root, fold="1/3", splits=("test",)).splits == {"test": whole.splits["test"]}


@pytest.mark.parametrize("fold", ["1", "0/3", "4/3", "1/1", "a/b", "1/3/5"])
def test_a_fold_of_another_form_is_refused(fold: str) -> None:
    with pytest.raises(InputError, match="must be NUMBER/FOLDS, such as 1/5"):
        load_recipe(None, {"data.fold": fold})


# --- The doctor


def test_the_doctor_warns_of_a_split_that_cuts_groups(tmp_path: Path) -> None:
    root = patients(tmp_path / "a", count=4, views=5)

    def found(**arguments: Any) -> list[str]:
        findings = examine(root, **arguments).findings
        return [f.message for f in findings if f.kind.id == "split-cuts-groups"]

    (message,) = found(seed=1)
    assert message.startswith("4 of 4 images of val are named like images of train (patient")
    assert found(group_by="{group}_*") == []


def test_names_that_count_all_images_are_no_groups(tmp_path: Path) -> None:
    root = write_grouped(tmp_path, {f"img_{i:04d}": [0, 1] for i in range(12)})
    assert "split-cuts-groups" not in {f.kind.id for f in examine(root).findings}


# --- Cross-validation


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"), train=4, val=2, height=32, width=48)


@pytest.fixture(scope="module")
def whole(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> CrossValidation:
    out = tmp_path_factory.mktemp("cv") / "o"
    result = cross_validate(scenes, out, recipe(), folds=2)
    described = json.loads((out / "fold-2/data.json").read_text())
    data = open_splits(Bundle.load(out / "fold-2/last.safetensors"), scenes, "val")
    recorded = [sample["name"] for sample in described["splits"]["val"]]
    assert [sample.name for sample in data.splits["val"]] == recorded
    return result


def test_every_image_is_scored_once_by_a_network_that_has_not_seen_it(
    scenes: Path, whole: CrossValidation
) -> None:
    total = sum(int(part.sum()) for part in open_dataset(scenes).pixel_counts.values())
    assert whole.scores.pixels == total
    assert [fold.images for fold in whole.folds] == [3, 3]
    assert len(whole.group_counts) == 6
    assert (whole.group_counts.sum(axis=0) == whole.matrix.class_counts()).all()


class Dying(FoldsCallback):
    """Raises an error at an event of a fold, in place of a kill."""

    def __init__(self, event: str, fold: int) -> None:
        self.event, self.fold, self.number = event, fold, 0

    def _meet(self, event: str) -> None:
        if (event, self.number) == (self.event, self.fold):
            raise MemoryError

    def on_fold_begin(self, number: int, folds: int) -> None:
        self.number = number
        self._meet("begin")

    def on_step(self, *, epoch: int, step: int, **_: Any) -> None:
        if (epoch, step) == (2, 1):
            self._meet("step")

    def on_epoch_end(self, row: Mapping[str, Any]) -> None:
        if row["epoch"] == 2:
            self._meet("end")

    def on_fold_predicting(self, number: int, folds: int) -> None:
        self.number = number
        self._meet("predicting")


def test_a_killed_cross_validation_resumes_to_the_same_table(
    scenes: Path, whole: CrossValidation, tmp_path: Path
) -> None:
    events = [("step", 1), ("end", 1), ("begin", 2), ("step", 2), ("predicting", 2)]
    for event, fold in events:
        with pytest.raises(MemoryError):
            cross_validate(scenes, tmp_path / "o", recipe(), folds=2, callback=Dying(event, fold))
    again = cross_validate(scenes, tmp_path / "o", recipe(), folds=2)
    assert again.to_json() == whole.to_json()


def test_a_val_of_the_dataset_that_divides_groups_is_noted(tmp_path: Path) -> None:
    write_grouped(tmp_path, {f"{s}/{p}_{s}": [0, 1] for s in ("train", "val") for p in "ab"})
    data = open_training_data(tmp_path, recipe(**{"data.group_by": "{group}_*"}))
    assert "val divides 2 of 2 groups by {group}_*, such as a: the score is too" in data.notes[-1]
    data = open_training_data(tmp_path, recipe(**{"data.group_by": "*_{group}"}))
    assert "divides" not in data.notes[-1]
    with pytest.raises(InputError, match=r"there is no file typo\.csv"):
        open_training_data(tmp_path, recipe(**{"data.group_by": "typo.csv:x"}))
    assert any("divides 2 of 2" in n for n in examine(tmp_path, group_by="{group}_*").facts.notes)


def test_a_dataset_of_a_test_split_alone_has_no_folds(tmp_path: Path) -> None:
    write_grouped(tmp_path, {f"test/{name}": [0, 1] for name in "abc"})
    with pytest.raises(InputError, match="has no images to divide into folds besides test"):
        open_dataset(tmp_path, fold="1/2")


def test_the_interval_is_over_groups(tmp_path: Path) -> None:
    root = patients(tmp_path / "data", count=4, views=2)
    rule = recipe(**{"data.group_by": "{group}_*", "epochs": 1})
    result = cross_validate(root, tmp_path / "o", rule, folds=2)
    content = result.to_json()
    assert content["intervals"]["over"] == "groups"
    assert content["intervals"]["groups"] == len(result.group_counts) == 4
    assert "images" not in content["intervals"]
    assert [row["groups"] for row in content["folds"]] == [2, 2]
    assert result.intervals.values["mean_iou"].tolist() == pytest.approx(
        score_intervals(result.group_counts).values["mean_iou"].tolist()
    )


def test_a_fold_that_was_trained_elsewhere_is_used(scenes: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        folder = tmp_path / f"elsewhere-{number}"
        train(scenes, folder, recipe(**{"data.fold": f"{number}/2", "epochs": 1}))
        target = tmp_path / "o" / f"fold-{number}"
        target.mkdir(parents=True)
        (folder / "last.safetensors").rename(target / "last.safetensors")
    result = cross_validate(scenes, tmp_path / "o", recipe(), folds=2)
    assert [fold.images for fold in result.folds] == [3, 3]
    assert not (tmp_path / "o/fold-1/checkpoints").exists()
    (tmp_path / "o/fold-2/last.safetensors").write_bytes(
        (tmp_path / "o/fold-1/last.safetensors").read_bytes()
    )
    with pytest.raises(InputError, match=r"was trained with data.fold = '1/2', not '2/2'"):
        cross_validate(scenes, tmp_path / "o", recipe(), folds=2)


def test_other_settings_or_changed_images_are_refused(scenes: Path, tmp_path: Path) -> None:
    root = patients(tmp_path / "data", count=2, views=2)
    out = tmp_path / "o"
    cross_validate(root, out, recipe(epochs=1), folds=2)
    with pytest.raises(InputError, match=r"another recipe \(epochs\)"):
        cross_validate(root, out, recipe(epochs=2), folds=2)
    with pytest.raises(InputError, match="another folds"):
        cross_validate(root, out, recipe(epochs=1), folds=3)
    image = next((root / "images").iterdir())
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(image)
    with pytest.raises(InputError, match="have changed since the run began"):
        cross_validate(root, out, recipe(epochs=1), folds=2)


def test_bad_input_gives_one_line(tmp_path: Path, cli: Cli) -> None:
    root = patients(tmp_path / "data", count=2, views=2)
    single = write_grouped(tmp_path / "single", {f"a_{i}": [0] for i in range(4)})
    settings = ["--set", "model.options.backbone=tiny", "--set", "model.weights=none"]
    for data, arguments, message in (
        (root, ["--folds", "5"], "the dataset has 4 images: give at most that many"),
        (root, ["--folds", "3", "--group-by", "{group}_*"], "has 2 groups of images"),
        (root, ["--folds", "2", "--set", "data.fold=1/2"], "the study sets it: omit it"),
        (single, ["--folds", "2"], "class"),
        (tmp_path / "none", ["--folds", "2"], "does not exist"),
    ):
        out = tmp_path / "out"
        result = cli("cross-validate", data, "--out", out, "--epochs", "1", *arguments, *settings)
        assert result.code == 2, result.err
        assert len(result.err.splitlines()) == 1
        assert message in result.err
    # A call that fails before the first fold does not fix the settings.
    result = cli("cross-validate", root, "--out", out, "--folds", "2", "--epochs", "1", *settings)
    assert result.code == 0, result.err


# --- What groups are for


def write_views(root: Path, *, groups: int, seed: int) -> Path:
    """Write ten views of each group: a disk on a ground, in colors that are the group's own.

    In most groups the disk is the brighter one, which is all that a network can learn about a new
    group; of a known group it can learn both colors.
    """
    rng = np.random.default_rng(seed)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    rows, columns = np.indices((32, 48))
    for group in range(groups):
        colors = rng.integers(30, 226, (2, 3))
        if (colors[0].sum() > colors[1].sum()) == (rng.random() < 0.8):
            colors = colors[::-1]
        for view in range(10):
            row, column, radius = rng.integers(8, 24), rng.integers(10, 38), rng.integers(6, 12)
            mask = ((rows - row) ** 2 + (columns - column) ** 2 < radius**2).astype(np.uint8)
            image = colors[mask] + rng.normal(0, 8, (32, 48, 3))
            name = f"g{group:02d}_{view}.png"
            Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(root / "images" / name)
            Image.fromarray(mask).save(root / "masks" / name)
    (root / "classes.toml").write_text(
        '[[class]]\nname = "ground"\nvalue = 0\n\n[[class]]\nname = "disk"\nvalue = 1\n'
    )
    return root


@pytest.mark.slow
def test_the_grouped_score_holds_for_new_groups_and_the_random_one_is_too_high(
    tmp_path: Path,
) -> None:
    root = write_views(tmp_path / "views", groups=12, seed=0)
    new = write_views(tmp_path / "new", groups=40, seed=1)
    settings = {"epochs": 12, "batch_size": 8, "augmentation.crop": [32, 48]}
    rule = {"data.group_by": "{group}_*"}
    grouped = cross_validate(root, tmp_path / "g", recipe(**settings, **rule), folds=4)
    drawn = cross_validate(root, tmp_path / "r", recipe(**settings), folds=4)
    truth = []
    for bundle in sorted((tmp_path / "g").glob("fold-*/last.safetensors")):
        data = open_dataset(new, draw_val=False)
        predictor = Predictor.load(bundle, runtime="torch")
        truth.append(evaluate(predictor, data, "all").scores.mean_iou)
    low, high = grouped.intervals.values["mean_iou"]
    assert low <= np.mean(truth) <= high, (low, truth, high)
    assert drawn.scores.mean_iou > high
