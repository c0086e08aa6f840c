"""Commands that write: files that they did not write are neither replaced nor removed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fixture_types import Cli, MakeData
from pixelwise.cli import app
from pixelwise.folder_lock import FolderLock
from pixelwise.overwriting import check_output, html_mark, json_mark

BY_HAND = b"# made by hand"  # also a valid data.toml
TRAINING = ("--set", "model.options.backbone=tiny", "--weights", "none", "--epochs", "1")
SWEEP = ("--set", TRAINING[1], "--set", "model.weights=none", "--set", "epochs=1")
PART = "predict b.safetensors data/images --shard 1/1 --table t.csv --out p"
RUN_FILES = ("recipe.toml", "data.json", "metrics.jsonl", "best.safetensors", "last.safetensors")
RUN_INNER = (
    "val_images.safetensors",
    "report.html",
    "checkpoints/step-000000000.safetensors",
    "not_finite/batch.safetensors",
    "tensorboard/events.out.tfevents.1",
)


@dataclass(frozen=True)
class Case:
    """A way to call a command that writes.

    Args:
        arguments: The command; `bundle`, `data`, `run` and `clip.mp4` are there.
        places: The files that it would write, each of which exists in turn.
        needs: An optional package without which the command cannot run.
        after: A command that runs before.
    """

    arguments: tuple[str, ...]
    places: tuple[str, ...]
    needs: str = ""
    after: str = ""


def case(command: str, *places: str, needs: str = "", after: str = "") -> Case:
    return Case(tuple(command.split()), places, needs, after)


WRITING: dict[str, list[Case]] = {
    "predict": [
        case("predict b.safetensors data/images --out o", "o/000.png", "o/003_overlay.png"),
        case("predict b.safetensors data/images --out o --no-overlay", "o/000.png"),
        case("predict b.safetensors data/images --out data/masks --overlay", "data/masks/001.png"),
        case("predict b.safetensors photos/x.jpg --out photos", "photos/x.png"),
        case("predict b.safetensors data/images --table a.csv --out o", "a.csv", needs="scipy"),
        case("predict b.safetensors data/images --table a.json --out o", "a.json", needs="scipy"),
        case(
            "predict b.safetensors data/images --table a.parquet --out o",
            "a.parquet",
            needs="pyarrow",
        ),
        case(
            "predict b.safetensors data/images --confidence --probabilities --out o",
            "o/000_confidence.tif",
            "o/000_probabilities.tif",
            needs="tifffile",
        ),
        case(
            "predict b.safetensors data/images --to geojson --out o",
            "o/000.geojson",
            needs="pyogrio",
        ),
        case(
            "predict b.safetensors data/images --to geojson --geopackage --out o",
            "o/000.gpkg",
            needs="pyogrio",
        ),
        *(
            case(f"predict b.safetensors data/images --to {tool} --out o", *files, needs="scipy")
            for tool, files in {
                "labelme": ("o/000.json", "o/000.png"),
                "coco": ("o/annotations/instances_default.json", "o/images/001.png"),
                "cvat": ("o/SegmentationClass/002.png",),
                "label-studio": ("o/tasks.json",),
                "yolo": ("o/labels/000.txt",),
            }.items()
        ),
        case(
            "predict b.safetensors data/images --shard 1/1 --table a.csv --out o",
            "o/000.png",
            "o/001_overlay.png",
            "a.csv",
            needs="scipy",
        ),
        case("predict b.safetensors data/images --shard 1/1 --tar --out o", "o/shard-000000.tar"),
        case("predict b.safetensors data/images --cluster local --out o", "o/000.png", needs="ray"),
        case("predict b.safetensors tiff --large --out o", "o/a.tif", needs="tifffile"),
        case(
            "predict b.safetensors tiff --large --to geojson --table a.csv --out o",
            "o/a.geojson",
            "a.csv",
            needs="pyogrio",
        ),
        case("predict b.safetensors clip.mp4 --table a.csv --out o", "a.csv", needs="av"),
        case("predict b.safetensors clip.mp4 --out o", "o/clip_overlay.mp4", needs="av"),
        case(
            "predict b.safetensors clip.mp4 --frame-masks --out o",
            "o/clip_masks/000001.png",
            "o/clip_overlay.mp4",
            needs="av",
        ),
    ],
    "evaluate": [
        case("evaluate b.safetensors data --json o.json", "o.json"),
        case("evaluate b.safetensors data --image-scores o.safetensors", "o.safetensors"),
    ],
    "calibrate": [case("calibrate b.safetensors data --json o.json", "o.json")],
    "tune-bias": [
        case(
            "tune-bias b.safetensors data --out o.safetensors --json o.json",
            "o.safetensors",
            "o.json",
        )
    ],
    "compare": [case("compare run run --json o.json", "o.json")],
    "benchmark": [case("benchmark b.safetensors --json o.json", "o.json")],
    "tune-crf": [case("tune-crf b.safetensors data --json o.json", "o.json")],
    "doctor": [
        case("doctor data --json o.json", "o.json"),
        case("doctor data --html o.html", "o.html"),
        case("doctor data --html o.html --json o.json --write-data-toml", "data/data.toml"),
    ],
    "export": [
        case("export b.safetensors --to onnx", *(f"b-onnx/{n}" for n in ("export.json", "x"))),
        case("export b.safetensors --out o", "o/model.xml", "o/notes/x"),
    ],
    "convert": [case("convert vgg16.pth --model fcn32s --out o.safetensors", "o.safetensors")],
    "convert-data": [
        case("convert-data data o", "o/images/000.png", "o/masks/000.png", "o/classes.toml", "o/x"),
        case("convert-data data o --overwrite", "o/images/x.png", "o/masks/x.png", "o/x"),
    ],
    "train": [
        Case(
            ("train", "data", "--out", "o", *TRAINING),
            tuple(f"o/{name}" for name in (*RUN_FILES, *RUN_INNER)),
        ),
        Case(("train", "data", "--out", "o", "--preview", *TRAINING), ("o_preview.html",)),
    ],
    "sweep": [
        Case(
            ("sweep", "data", "--out", "o", "--trials", "1", "--json", "o.json", *SWEEP),
            (
                "o/sweep.json",
                "o/trials.log",
                "o/best.toml",
                "o/trial-000/best.safetensors",
                "o.json",
            ),
            needs="optuna",
        ),
    ],
    "learning-curve": [
        Case(
            ("learning-curve", "data", "--out", "o", "--steps", "1", "--json", "o.json"),
            (
                "o/study.json",
                "o/learning_curve.json",
                "o/learning_curve.html",
                "o/run-000001-0/best.safetensors",
                "o.json",
            ),
        ),
    ],
    "select": [
        case(
            "select data/images --bundle b.safetensors --count 1 --files copy --out o",
            "o/selection.txt",
            "o/selection.json",
            "o/selection.html",
            "o/.pixelwise-select.jsonl",
            "o/images/000.png",
            "o/images/x",
        ),
        case(
            "select data/images --bundle b.safetensors --count 1 --files link --out o",
            "o/images/000.png",
        ),
        case("select data/images --bundle b.safetensors --count 1 --json o.json", "o.json"),
    ],
    "cross-validate": [
        Case(
            ("cross-validate", "data", "--out", "o", "--folds", "2", "--json", "o.json", *SWEEP),
            ("o/folds.json", "o/fold-1/last.safetensors", "o/x", "o.json"),
        ),
    ],
    "label-errors": [
        Case(
            ("label-errors", "data", "--out", "o", "--folds", "2", "--json", "o.json", *SWEEP),
            ("o/folds.json", "o/fold-2/best.safetensors", "o/x", "o.json"),
        ),
        case(
            "label-errors data --run b.safetensors --out o --suggest s",
            "o/label_errors.html",
            "o/label_errors.json",
            "s/masks/000.png",
        ),
    ],
    "demo": [
        case(
            "demo --out o --epochs 1",
            "o/scenes/images/train/scene_0000.png",
            "o/scenes/masks/val/scene_0000.png",
            "o/scenes/classes.toml",
            "o/best.safetensors",
            "o/report.html",
        ),
    ],
    "finish": [
        case("finish o", "o/finish.json"),  # of an active run: see test_ending.py
    ],
    "merge": [
        case("merge p --out o", "o/000.png", "o/003_overlay.png", after=PART),
        case("merge p --table a.csv", "a.csv", needs="scipy", after=PART),
    ],
    "data get": [
        case("data get camvid --to o", "o/x", "o/images/x.png"),
    ],
}
NOTHING = {"models", "recipe", "serve", "data list", "weights list", "weights show"}
"""Commands that write no files."""
ELSEWHERE = {"weights get"}
"""Writes into the cache only; see test_weights.py."""


def test_every_command_is_in_the_table() -> None:
    """A new command must say which files it writes."""
    groups = {group.name: group.typer_instance for group in app.registered_groups}
    names = {_name(command) for command in app.registered_commands}
    for group, commands in groups.items():
        names |= {f"{group} {_name(command)}" for command in commands.registered_commands}
    assert names == {*WRITING, *NOTHING, *ELSEWHERE}


def _name(command: Any) -> str:
    return command.name or command.callback.__name__.replace("_", "-")


@pytest.fixture(scope="module")
def inputs(
    tmp_path_factory: pytest.TempPathFactory, make_folder_data: MakeData, tiny_bundle: Path
) -> Path:
    """The inputs of the commands."""
    import numpy as np
    from PIL import Image

    root = tmp_path_factory.mktemp("inputs")
    make_folder_data(root / "data")
    shutil.copy(tiny_bundle, root / "b.safetensors")
    (root / "run").mkdir()
    (root / "vgg16.pth").write_bytes(b"weights")
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    (root / "photos").mkdir()
    Image.fromarray(image).save(root / "photos" / "x.jpg")
    if _installed("tifffile"):
        import tifffile

        (root / "tiff").mkdir()
        tifffile.imwrite(root / "tiff" / "a.tif", image, photometric="rgb", tile=(16, 16))
    if _installed("av"):
        import av

        with av.open(str(root / "clip.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=10)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for _ in range(3):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode(None))
    return root


def _installed(package: str) -> bool:
    from importlib.util import find_spec

    return find_spec(package) is not None


def snapshot(folder: Path) -> Mapping[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


CASES = [
    pytest.param(
        one,
        place,
        id=f"{' '.join(one.arguments)[:60]} [{place}]",
        marks=[pytest.mark.slow] if "--cluster" in one.arguments else [],
    )
    for cases in WRITING.values()
    for one in cases
    for place in one.places
]


@pytest.mark.parametrize(("one", "place"), CASES)
def test_a_file_of_others_where_a_command_would_write_is_neither_replaced_nor_removed(
    one: Case, place: str, inputs: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    if one.needs:
        pytest.importorskip(one.needs)
    shutil.copytree(inputs, tmp_path, dirs_exist_ok=True)
    if one.after:
        assert cli(*one.after.split()).code == 0
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).write_bytes(BY_HAND)
    monkeypatch.setattr("pixelwise.cli.demo.DEMO_SCENES", {"train": 1, "val": 1, "test": 1})
    before = snapshot(tmp_path)
    result = cli(*one.arguments)
    assert result.code == 2, result
    (line,) = result.err.splitlines()
    assert line.startswith("pixelwise: error: ")
    after = snapshot(tmp_path)
    assert {path: after.get(path) for path in before} == before
    made = {path.relative_to(tmp_path).as_posix() for path in after.keys() - before.keys()}
    assert all(name.startswith("o/scenes/") for name in made), made


LOCKING = {  # for train, see test_folder_lock.py; for predict, test_folder.py
    "sweep": WRITING["sweep"][0],
    "learning-curve": WRITING["learning-curve"][0],
    "cross-validate": WRITING["cross-validate"][0],
    "label-errors by folds": WRITING["label-errors"][0],
    "label-errors": case("label-errors data --run b.safetensors --out o"),
    "select": WRITING["select"][0],
    "demo": WRITING["demo"][0],
    "predict --to": case("predict b.safetensors data/images --to coco --out o", needs="scipy"),
    "predict --large": case("predict b.safetensors tiff --large --out o", needs="tifffile"),
    "predict a video": case("predict b.safetensors clip.mp4 --out o", needs="av"),
    "merge": WRITING["merge"][0],
}


@pytest.mark.parametrize("command", LOCKING)
def test_a_folder_in_which_another_command_writes_is_left_alone(
    command: str, inputs: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = LOCKING[command]
    if one.needs:
        pytest.importorskip(one.needs)
    shutil.copytree(inputs, tmp_path, dirs_exist_ok=True)
    if one.after:
        assert cli(*one.after.split()).code == 0
    monkeypatch.setattr("pixelwise.cli.demo.DEMO_SCENES", {"train": 1, "val": 1, "test": 1})
    with FolderLock(tmp_path / "o", "train") as lock:
        lock.take()
        before = snapshot(tmp_path)
        result = cli(*one.arguments)
        assert result.code == 2, result
        assert "o: another pixelwise train (process " in result.err
        assert snapshot(tmp_path) == before


OVERWRITING = [
    case("predict b.safetensors data/images --out o --overwrite", "o/000.png"),
    case("predict b.safetensors tiff --large --out o --overwrite", "o/a.tif", needs="tifffile"),
    case(
        "predict b.safetensors clip.mp4 --frame-masks --out o --overwrite",
        "o/clip_masks/000001.png",
        needs="av",
    ),
    case("doctor data --json o/o.json --overwrite", "o/o.json"),
    case("doctor data --html o/o.html --overwrite", "o/o.html"),
    case("evaluate b.safetensors data --image-scores o/o.bin --overwrite", "o/o.bin"),
]


@pytest.mark.parametrize("one", OVERWRITING, ids=lambda one: " ".join(one.arguments)[:70])
def test_overwrite_replaces_files_of_the_same_name_only_and_a_repeated_command_its_own(
    one: Case, inputs: Path, tmp_path: Path, cli: Cli
) -> None:
    if one.needs:
        pytest.importorskip(one.needs)
    shutil.copytree(inputs, tmp_path, dirs_exist_ok=True)
    (place,) = one.places
    others = [tmp_path / "o" / "notes.txt", (tmp_path / place).with_name("000009.png")]
    for path in (tmp_path / place, *others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(BY_HAND)
    assert cli(*one.arguments).code in {0, 1}  # 1: the doctor's verdict
    assert (tmp_path / place).read_bytes() != BY_HAND
    again = one.arguments[:-1]
    if "--frame-masks" in again:  # every mask in the folder could be in the way
        others.pop().unlink()
    assert cli(*again).code in {0, 1}
    assert [path.read_bytes() for path in others] == [BY_HAND] * len(others)


@pytest.mark.parametrize("change", ["corrected", "replaced", "appended"])
def test_a_mask_that_was_corrected_by_hand_is_kept(
    change: str, inputs: Path, tmp_path: Path, cli: Cli
) -> None:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    shutil.copytree(inputs, tmp_path, dirs_exist_ok=True)
    predict = ("predict", "b.safetensors", "data/images", "--out", "o")
    assert cli(*predict).code == 0
    path = tmp_path / "o" / "001.png"
    if change == "corrected":  # by a program that keeps the texts in the file
        with Image.open(path) as mask:
            mask.load()
            texts = PngInfo()
            for key, text in mask.text.items():
                texts.add_text(key, text)
            mask.putpixel((0, 0), (mask.getpixel((0, 0)) + 1) % 3)
            mask.save(path, pnginfo=texts)
        assert b"pixelwise predict" in path.read_bytes()
    elif change == "replaced":
        path.write_bytes((tmp_path / "data" / "masks" / "001.png").read_bytes())
    else:
        path.write_bytes(path.read_bytes() + b"\0")
    before = snapshot(tmp_path)
    result = cli(*predict)
    assert (result.code, len(result.err.splitlines())) == (2, 1)
    assert f"{Path('o/001.png')}: exists and was not written by this command" in result.err
    assert snapshot(tmp_path) == before
    assert cli(*predict, "--overwrite").code == 0


def test_a_resumed_or_replaced_run_keeps_the_files_of_others(inputs: Path, tmp_path: Path) -> None:
    from pixelwise.errors import InputError
    from pixelwise.recipes.load_recipe import load_recipe
    from pixelwise.training import resume, train

    options = {"model.options.backbone": "tiny", "model.weights": "none", "data.workers": 0}
    recipe = load_recipe(None, {**options, "epochs": 1, "augmentation.crop": [24, 32]})
    out = tmp_path / "run"
    train(inputs / "data", out, recipe)
    others = ["notes.txt", "checkpoints/mine.txt", "tensorboard/mine.txt", ".pip.part"]
    for name in others:
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_bytes(BY_HAND)
    for name in ("best.safetensors", "last.safetensors", "metrics.jsonl", "report.html"):
        path = out / name
        own = path.read_bytes() if path.exists() else None
        path.write_bytes(BY_HAND)
        with pytest.raises(InputError, match=f"{name}: was not written by train"):
            resume(out)
        assert path.read_bytes() == BY_HAND
        path.unlink() if own is None else path.write_bytes(own)
    resume(out)
    train(inputs / "data", out, recipe, overwrite=True)
    assert all((out / name).read_bytes() == BY_HAND for name in others)


def test_files_of_a_command_are_recognized_by_their_mark(tmp_path: Path) -> None:
    path = tmp_path / "o"
    for mark in (json_mark("doctor"), html_mark("doctor")):
        path.write_text(f"before {mark} after")
        check_output(path, mark=mark)
    from pixelwise.errors import InputError

    for content in (json_mark("evaluate"), "", "doctor", json.dumps({"written_by": "me"})):
        path.write_text(content)
        with pytest.raises(InputError, match="--overwrite to replace it"):
            check_output(path, mark=json_mark("doctor"))
        check_output(path, mark=json_mark("doctor"), overwrite=True)
