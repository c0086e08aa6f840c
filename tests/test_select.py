"""Selecting what to label next: the choice, the measurements, the files, and continuing."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from fixture_types import Cli, MakeData
from pixelwise.data.classes import Classes
from pixelwise.doctor.measures.fingerprint import Fingerprint, fingerprint
from pixelwise.errors import InputError
from pixelwise.file_io import PART
from pixelwise.inference import Predictor
from pixelwise.interrupts import StoppedError
from pixelwise.models import create_model
from pixelwise.study import select as module
from pixelwise.study.diverse_choice import choose, relative_doubt, skip_frames
from pixelwise.study.pool_measures import (
    FEATURES,
    MeasureLog,
    NetworkProbe,
    _project,
    decode_fingerprint,
    encode_fingerprint,
    entropy,
)
from pixelwise.study.select import select
from pixelwise.weights.bundle import Bundle
from pixelwise.weights.normalization import IMAGENET

NONE = np.zeros((0, 2))


def texture(seed: int, *, shift: int = 0, size: tuple[int, int] = (48, 64)) -> NDArray[np.uint8]:
    """A smooth random image (H, W, 3); a small shift gives the next frame of a video."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (8, 12, 3), np.uint8))
    wide = np.asarray(small.resize((size[1] + 40, size[0]), Image.Resampling.BICUBIC))
    return np.ascontiguousarray(wide[:, shift : shift + size[1]])


def print_of(image: NDArray[np.uint8]) -> Fingerprint:
    found = fingerprint(image, np.asarray(Image.fromarray(image).convert("L")))
    assert found is not None
    return found


def save(image: NDArray[np.uint8], path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    for number, seed in enumerate((11, 22, 33, 44, 55, 66)):
        save(texture(seed), tmp_path / "pool" / f"{'abcdef'[number]}.png")
    return tmp_path / "pool"


@pytest.fixture
def predictor(tiny_bundle: Path) -> Predictor:
    return Predictor.load(tiny_bundle, runtime="torch")


def names(result: module.Selection) -> list[str]:
    return [each.path.name for each in result.chosen]


# --- The choice


def test_a_rare_class_counts_as_much_as_a_large_one() -> None:
    doubt = np.full((20, 2), (0.2, 1e-9))
    doubt[:, 0] += np.linspace(0, 0.05, 20)
    doubt[4, 1] = 0.01  # the only image with the thin class
    assert doubt.sum(axis=1).argmax() == 19
    assert relative_doubt(doubt).mean(axis=1).argmax() == 4
    doubt = np.full((20, 10), 0.1)
    doubt[3, :9] *= 2  # more doubt about nine classes
    doubt[4, 9] *= 8  # and far more about a rare one
    prints = [None] * 20
    features = np.random.default_rng(0).standard_normal((20, 2))
    assert choose(doubt, features, np.zeros((0, 2)), prints, 1)[0].index == 4


def test_a_class_that_the_network_has_never_seen_does_not_decide() -> None:
    doubt = np.full((20, 2), (0.2, 1e-9))
    doubt[7, 1] = 1e-7
    relative = relative_doubt(doubt)[:, 1]
    assert relative.max() < 0.01


def test_the_choice_is_in_doubt_and_away_from_what_is_labeled_or_chosen() -> None:
    features = np.array([[0.0, 0], [0.1, 0], [5, 0], [5.1, 0], [0, 5], [0, 5.2]])
    doubt = np.array([[2.0], [1.9], [1.5], [1.0], [1.0], [1.4]])
    prints = [print_of(texture(seed)) for seed in range(6)]
    first, second, third = choose(doubt, features, NONE, prints, 3)
    assert [first.index, second.index, third.index] == [0, 2, 5]
    assert np.isinf(first.distance)
    assert first.nearest == -1
    assert second.nearest == 0
    labeled = np.array([[0.0, 0.05]])
    chosen = choose(doubt, features, labeled, prints, 2)
    assert {each.index for each in chosen} == {2, 5}  # not 0, which is beside a labeled one
    assert chosen[0].nearest == 0


def test_near_duplicates_of_a_chosen_image_are_not_chosen() -> None:
    image = texture(1)
    noisy = np.clip(image + np.random.default_rng(0).normal(0, 2, image.shape), 0, 255)
    prints = [print_of(image), print_of(noisy.astype(np.uint8)), print_of(texture(2)), None]
    features = np.array([[0.0, 0], [9, 9], [1, 0], [2, 0]])
    doubt = np.array([[3.0], [2.9], [1.0], [1.0]])
    assert sorted(c.index for c in choose(doubt, features, NONE, prints, 4)) == [0, 2, 3]


def test_frames_of_one_scene_are_skipped_and_other_images_are_not() -> None:
    frames = [print_of(texture(1, shift=shift)) for shift in (0, 0, 1, 20, 21, 21)]
    images = [Path(f"clip_{number:04d}.png") for number in range(6)]
    assert skip_frames(images, frames) == {1: 0, 2: 0, 4: 3, 5: 3}
    shuffled = [3, 0, 5, 1, 4, 2]  # the order is that of the numbers
    found = skip_frames([images[i] for i in shuffled], [frames[i] for i in shuffled])
    assert {shuffled[i] for i in found} == {1, 2, 4, 5}
    assert skip_frames([Path(f"{name}.png") for name in "abcdef"], frames) == {}
    assert skip_frames(images[:2], frames[:2]) == {}  # two images are no video
    other_folders = [Path(str(i)) / "frame_1.png" for i in range(6)]
    assert skip_frames(other_folders, frames) == {}


# --- The measurements


def test_doubt_is_divided_among_the_classes_and_features_are_pooled(
    predictor: Predictor, tiny_bundle: Path
) -> None:
    image = texture(3)
    measures = NetworkProbe(predictor)(predictor.prepare(image))
    probabilities = predictor(image).probabilities
    assert measures.doubt.sum() == pytest.approx(entropy(probabilities).mean(), rel=1e-4)
    model = Bundle.load(tiny_bundle).build().eval()
    with torch.inference_mode():
        batch = IMAGENET(torch.from_numpy(image).permute(2, 0, 1)[None])
        maps = model.backbone(batch)
    pooled = maps["c5"][0].mean(dim=(1, 2)).numpy()
    # A simplified network may shift each feature by a constant.
    other = texture(4)
    second = NetworkProbe(predictor)(predictor.prepare(other)).features
    with torch.inference_mode():
        batch = IMAGENET(torch.from_numpy(other).permute(2, 0, 1)[None])
        expected = model.backbone(batch)["c5"][0].mean(dim=(1, 2)).numpy() - pooled
    assert second - measures.features == pytest.approx(expected, abs=1e-4)


def test_temperature_changes_the_doubt(tiny_bundle: Path, tmp_path: Path) -> None:
    from pixelwise.weights.stored_calibration import StoredCalibration, write_calibration

    hot = Path(shutil.copy(tiny_bundle, tmp_path / "hot.safetensors"))
    write_calibration(hot, StoredCalibration(0.01, 0.0, 0.0, 10))
    doubts = [
        NetworkProbe(predictor)(predictor.prepare(texture(1))).doubt.sum()
        for predictor in (Predictor.load(path, runtime="torch") for path in (tiny_bundle, hot))
    ]
    assert doubts[1] < 0.9 * doubts[0]


def test_long_features_are_projected_and_keep_their_distances() -> None:
    rng = np.random.default_rng(0)
    long = rng.standard_normal((12, 2048)).astype(np.float32)
    short = np.stack([_project(row) for row in long])
    assert short.shape == (12, FEATURES)

    def distances(points: NDArray[Any]) -> NDArray[Any]:
        return np.linalg.norm(points[:, None] - points, axis=-1)[np.triu_indices(12, 1)]

    assert distances(short) == pytest.approx(distances(long), rel=0.2)


def test_the_log_keeps_measurements_and_survives_a_kill(tmp_path: Path) -> None:
    image = save(texture(1), tmp_path / "a.png")
    log = MeasureLog(tmp_path / "log", {"network": "x"})
    found = print_of(texture(1))
    stamp = [image.stat().st_size, image.stat().st_mtime_ns]
    log.add("fingerprint", image, stamp, encode_fingerprint(found))
    with (tmp_path / "log").open("a") as stream:
        stream.write('{"kind": "fingerprint", "ima')
    again = MeasureLog(tmp_path / "log", {"network": "x"})
    line = again.find("fingerprint", image)
    assert line is not None
    decoded = decode_fingerprint(line)
    assert decoded is not None
    assert (decoded.bits == found.bits).all()
    assert decoded.thumbnail == pytest.approx(found.thumbnail, abs=1e-3)
    again.add("other", image, stamp, {})
    assert MeasureLog(tmp_path / "log", {"network": "x"}).find("other", image) is not None
    assert MeasureLog(tmp_path / "log", {"network": "y"}).find("fingerprint", image) is None
    log = MeasureLog(tmp_path / "log", {"network": "y"})
    log.add("fingerprint", image, stamp, encode_fingerprint(found))
    os.utime(image, ns=(1, 1))
    assert log.find("fingerprint", image) is None  # it has changed


# --- Selecting


def test_the_results_are_a_list_a_page_json_and_copies(
    pool: Path, predictor: Predictor, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = select(pool, predictor, out, count=3, files="copy")
    listed = (out / "selection.txt").read_text().splitlines()
    assert listed[0].startswith("# pixelwise select: 3 of 6 images")
    assert listed[1:] == [str(each.path) for each in result.chosen]
    assert sorted(path.name for path in (out / "images").iterdir()) == sorted(names(result))
    assert (out / "images" / names(result)[0]).read_bytes() == result.chosen[0].path.read_bytes()
    written = json.loads((out / "selection.json").read_text())
    assert [row["image"] for row in written["images"]] == listed[1:]
    page = (out / "selection.html").read_text()
    for each in result.chosen:
        assert each.path.name in page
        assert each.reason in page
    assert any("not calibrated" in note for note in result.notes)
    # Another count needs no measurements, and replaces the files of the first.
    measured: list[int] = []
    again = select(
        pool, predictor, out, count=2, files="link", progress=lambda done, _: measured.append(done)
    )
    assert measured == []
    assert names(again) == names(result)[:2]
    links = list((out / "images").iterdir())
    assert len(links) == 2
    assert all(link.is_symlink() and link.samefile(pool / link.name) for link in links)


def test_labeled_images_and_what_nearly_equals_them_are_left_out(
    pool: Path, predictor: Predictor, tmp_path: Path, make_folder_data: MakeData
) -> None:
    data = make_folder_data(tmp_path / "data", count=2, size=(48, 64))
    save(texture(11), data / "images" / "000.png")  # equals pool/a.png
    (pool / "f.png").unlink()
    (pool / "f.png").symlink_to(data / "images" / "001.png")
    result = select(pool, predictor, tmp_path / "out", count=6, labeled=data)
    assert sorted(names(result)) == ["b.png", "c.png", "d.png", "e.png"]
    assert result.left_out == {"labeled": 1, "nearly equal to a labeled image": 1}
    assert any("only 4 of 6 images were chosen" in note for note in result.notes)
    assert all(each.distance is not None for each in result.chosen)


def test_a_stopped_selection_continues_to_the_same_result(
    pool: Path, predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = select(pool, predictor, tmp_path / "whole", count=3)
    measured: list[int] = []

    class Stops:
        requested: int | None = None

        def __enter__(self) -> Stops:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    def stop_later(done: int, total: int) -> None:
        measured.append(done)
        if len(measured) == 2:
            Stops.requested = 15

    monkeypatch.setattr("pixelwise.study.pool_measures.Interrupts", Stops)
    with pytest.raises(StoppedError, match="the same command continues"):
        select(pool, predictor, tmp_path / "cut", count=3, progress=stop_later)
    log = tmp_path / "cut" / ".pixelwise-select.jsonl"
    assert 2 <= len(log.read_text().splitlines()) - 1 < 6
    Stops.requested = None
    result = select(pool, predictor, tmp_path / "cut", count=3)
    assert [each.to_json() for each in result.chosen] == [each.to_json() for each in whole.chosen]


def test_unreadable_images_are_reported_and_the_others_selected(
    pool: Path, predictor: Predictor, tmp_path: Path
) -> None:
    (pool / "b.png").write_bytes(b"not an image")
    result = select(pool, predictor, tmp_path / "out", count=5)
    assert len(result.faults) == 1
    assert "b.png" in result.faults[0]
    assert result.left_out == {"cannot be read": 1}
    assert "b.png" not in names(result)


def test_images_of_one_name_are_all_copied(
    pool: Path, predictor: Predictor, tmp_path: Path
) -> None:
    other = save(texture(77), tmp_path / "camera2" / "a.png")
    select([pool, other.parent], predictor, tmp_path / "out", count=7, files="copy")
    copies = [path.read_bytes() for path in (tmp_path / "out" / "images").iterdir()]
    assert sorted(copies) == sorted(path.read_bytes() for path in [*pool.iterdir(), other])


def test_an_image_whose_name_annotations_cannot_hold_is_copied(
    predictor: Predictor, tmp_path: Path
) -> None:
    hidden = save(texture(77), tmp_path / "pool" / ".a.png")
    select([hidden], predictor, tmp_path / "out", count=1, files="copy")
    assert (tmp_path / "out/images/.a.png").read_bytes() == hidden.read_bytes()


def test_what_a_kill_left_of_a_copy_is_replaced(
    pool: Path, predictor: Predictor, tmp_path: Path
) -> None:
    result = select(pool, predictor, tmp_path / "out", count=2, files="copy")
    (tmp_path / "out" / "images" / f".a.png.0123abcd{PART}").write_bytes(b"torn")
    select(pool, predictor, tmp_path / "out", count=2, files="copy")
    inside = [path.name for path in (tmp_path / "out" / "images").iterdir()]
    assert sorted(inside) == sorted(names(result))


@pytest.mark.parametrize("files", ["copy", "link"])
def test_a_pool_in_the_folder_of_the_chosen_images_is_not_replaced(
    pool: Path, predictor: Predictor, tmp_path: Path, files: module.Files
) -> None:
    images = Path(shutil.move(pool, tmp_path / "out" / "images"))
    before = {path: path.read_bytes() for path in images.iterdir()}
    for overwrite in (False, True):
        with pytest.raises(InputError, match="where the chosen images are put"):
            select(images, predictor, tmp_path / "out", count=2, files=files, overwrite=overwrite)
    assert {path: path.read_bytes() for path in images.iterdir()} == before


def test_images_of_a_single_color_can_be_in_the_pool(
    pool: Path, predictor: Predictor, tmp_path: Path
) -> None:
    save(np.zeros((48, 64, 3), np.uint8), pool / "black.png")
    result = select(pool, predictor, tmp_path / "out", count=7)
    assert "black.png" in names(result)
    assert not result.faults


def write_bundle(path: Path, classes: list[str]) -> Path:
    options = {"backbone": "tiny", "output_stride": 16}
    model = create_model("deeplab_v3plus", num_classes=len(classes), **options)
    table = Classes.make(classes, ignore=255)
    Bundle("deeplab_v3plus", options, table, IMAGENET, model.state_dict()).save(path)
    return path


def test_bad_input_is_one_line(pool: Path, tiny_bundle: Path, tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "empty").mkdir()
    shutil.copy(tiny_bundle, tmp_path / "b.safetensors")
    write_bundle(tmp_path / "single.safetensors", ["all"])
    six_channels = np.zeros((8, 8, 6), np.uint8)
    (tmp_path / "six").mkdir()
    for name in "abcde":
        np.save(tmp_path / "six" / f"{name}.npy", six_channels)
    for arguments, message in (
        (("empty", "--bundle", "b.safetensors"), "no images in it"),
        (("missing", "--bundle", "b.safetensors"), "does not exist"),
        (("pool", "--bundle", "single.safetensors", "--count", "2"), "a single class"),
        (("pool", "--bundle", "b.safetensors", "--count", "7"), "has 6 images"),
        (("six", "--bundle", "b.safetensors", "--count", "2"), "6 channels"),
    ):
        result = cli("select", *arguments, "--out", "o")
        assert result.code == 2, arguments
        assert message in result.err
        assert len(result.err.splitlines()) == 1, result.err
        assert not (tmp_path / "o" / "selection.txt").exists()


def test_the_command_prints_where_the_results_are(
    pool: Path, tiny_bundle: Path, tmp_path: Path, cli: Cli
) -> None:
    shutil.copy(tiny_bundle, tmp_path / "b.safetensors")
    done = cli("select", "pool", "--bundle", "b.safetensors", "--count", "2", "--json", "o.json")
    assert done.code == 0, done.err
    assert "chosen       2 of 6 images" in done.out
    assert "selection/selection.html" in done.out
    assert len(json.loads((tmp_path / "o.json").read_text())["images"]) == 2
    (tmp_path / "mine" / "images").mkdir(parents=True)
    (tmp_path / "mine" / "images" / "note.txt").write_text("by hand")
    command = ("select", "pool", "--bundle", "b.safetensors", "--count", "2", "--out", "mine")
    refused = cli(*command, "--files", "copy")
    assert refused.code == 2
    assert "note.txt: exists and was not written by this command" in refused.err
    assert cli(*command).code == 0  # without --files nothing is in the way
    assert cli(*command, "--files", "link", "--overwrite").code == 0
    inside = {path.name for path in (tmp_path / "mine" / "images").iterdir()}
    assert len(inside) == 3
    assert (tmp_path / "mine" / "images" / "note.txt").read_text() == "by hand"
