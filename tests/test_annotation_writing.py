"""Annotations for labeling tools: every format gives back the masks that were written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

import pixelwise
from fixture_types import Cli, MakeData
from pixelwise import AnswerOptions, InputError, Predictor
from pixelwise.data import rle
from pixelwise.data.classes import IGNORE, Classes
from pixelwise.data.layouts import read as read_layout
from pixelwise.data.layouts.annotation_writing import MASKS, POLYGONS
from pixelwise.inference import predict_folder
from pixelwise.regions import annotations
from pixelwise.regions.annotations import WRITERS, AnnotationFolder

ndimage = pytest.importorskip("scipy.ndimage")
pytest.importorskip("rasterio")
pytest.importorskip("shapely")

NAMES = ("background", 'a "thin", long pole', "Straße & <Wég>", "no")
CLASSES = Classes.make(NAMES, ignore=255)
KINDS = [(to, kind) for to, writer in WRITERS.items() for kind in writer.KINDS]
Labels = np.ndarray[Any, np.dtype[np.uint8]]


def read_back(out: Path, to: str) -> tuple[dict[str, Labels], Classes]:
    """Read a folder of annotations as training does: class indices by the stem of the image."""
    source = read_layout(out)
    assert source.layout == to
    assert source.classes is not None
    found: dict[str, Labels] = {}
    for samples in source.splits.values():
        for sample in samples:
            with Image.open(sample.image) as image:
                turned = image.getexif().get(0x112) in {5, 6, 7, 8}
                size = image.size if turned else image.size[::-1]
            mask = sample.mask.read(size)
            read = source.classes
            index = read.rgb_to_index(mask) if mask.ndim == 3 else read.to_index(mask)
            assert sample.image.stem not in found
            found[sample.image.stem] = index
    return found, source.classes


def write(out: Path, to: str, masks: dict[Path, Labels], **options: Any) -> AnnotationFolder:
    folder = AnnotationFolder(out, to, [*masks], options.pop("classes", CLASSES), **options)
    folder.write(masks.__getitem__)
    return folder


def save_image(path: Path, size: tuple[int, int]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size[::-1], (90, 120, 30)).save(path)
    return path


def blobs(seed: int, size: tuple[int, int] = (48, 64), *, sigma: float = 2.0) -> Labels:
    """Return touching regions with holes, of all classes and ignored pixels, and single pixels."""
    rng = np.random.default_rng(seed)
    smooth = [ndimage.gaussian_filter(rng.normal(size=size), sigma) for _ in range(5)]
    labels = np.array([0, 1, 2, 3, IGNORE], np.uint8)[np.argmax(smooth, axis=0)]
    labels[rng.integers(0, size[0], 9), rng.integers(0, size[1], 9)] = 1
    return labels


SIZE = st.tuples(st.integers(1, 12), st.integers(1, 12))
RANDOM = SIZE.flatmap(
    lambda size: arrays(np.uint8, size, elements=st.sampled_from([0, 1, 2, 3, IGNORE]))
)


@pytest.mark.parametrize(("to", "kind"), KINDS)
@settings(max_examples=15, deadline=None)
@example(labels=np.ones((1, 1), np.uint8))
@given(labels=RANDOM)
def test_exact_shapes_give_back_any_mask(
    to: str, kind: str, labels: Labels, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("exact")
    image = save_image(folder / "in" / "a.png", labels.shape)
    write(folder / "out", to, {image: labels}, shapes=kind, tolerance=0)
    found, _ = read_back(folder / "out", to)
    np.testing.assert_array_equal(found["a"], labels)


@pytest.mark.parametrize("tolerance", [0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("to", [to for to, kind in KINDS if kind == POLYGONS])
def test_simplified_polygons_differ_only_near_borders(
    to: str, tolerance: float, tmp_path: Path
) -> None:
    masks = {save_image(tmp_path / f"{i}.png", (48, 64)): blobs(i) for i in range(3)}
    write(tmp_path / "out", to, masks, shapes=POLYGONS, tolerance=tolerance)
    found, _ = read_back(tmp_path / "out", to)
    corners = 0
    for path, labels in masks.items():
        result = found[path.stem]
        inner = np.ones_like(labels, bool)
        for value in np.unique(labels):  # distance of each pixel's center to another class
            distance = ndimage.distance_transform_edt(np.pad(labels == value, 1, mode="edge"))
            inner &= (labels != value) | (distance[1:-1, 1:-1] > tolerance + 0.71)
        np.testing.assert_array_equal(result[inner], labels[inner])
        corners += (result != labels).sum()
        for value in np.unique(labels):  # no object is lost, however small
            numbered, count = ndimage.label(labels == value)
            kept = np.unique(numbered[result == value])
            assert value == 0 or {*kept} >= {*range(1, count + 1)}
    assert (corners > 0) == (tolerance >= 1)


def test_simplified_neighbors_leave_no_gap(tmp_path: Path) -> None:
    """Without a background, every pixel still has a class."""
    classes = Classes.make(("sky", "road", "tree"))
    masks = {save_image(tmp_path / f"{i}.png", (48, 64)): blobs(i) % 3 for i in range(4)}
    write(tmp_path / "out", "coco", masks, classes=classes, tolerance=3)
    found, read = read_back(tmp_path / "out", "coco")
    assert read.names == ("background", *classes.names)
    share = [float((labels == 0).mean()) for labels in found.values()]
    assert max(share) < 0.002  # only where two simplified borders cross


@pytest.mark.parametrize(("to", "kind"), KINDS)
def test_odd_images_and_names_are_kept_apart(to: str, kind: str, tmp_path: Path) -> None:
    """Equal stems, folders, an EXIF rotation, an empty mask, names with any characters."""
    names = ["x.jpg", "x.png", "b/x.jpg", "B/X.jpg", "Träß, v1.2 'q' #7.jpg", "empty.png"]
    masks: dict[Path, Labels] = {}
    for number, name in enumerate(names):
        path = save_image(tmp_path / "in" / name, (30 + number, 44))
        labels = blobs(number, (30 + number, 44))
        if name == "b/x.jpg":
            exif = Image.Exif()
            exif[0x112] = 6
            Image.open(path).save(path, exif=exif)
            labels = np.ascontiguousarray(np.rot90(labels))
        masks[path] = np.zeros_like(labels) if name == "empty.png" else labels
    folder = write(tmp_path / "out", to, masks, shapes=kind, tolerance=0)
    found, classes = read_back(tmp_path / "out", to)
    assert classes.names == NAMES
    assert {*found} == {*folder.base_names.values()}
    for path, labels in masks.items():
        np.testing.assert_array_equal(found[folder.base_names[path]], labels)
    data = pixelwise.open_dataset(tmp_path / "out", quiet=True)
    assert sum(map(len, data.splits.values())) == len(names)


@pytest.mark.parametrize(("to", "kind"), KINDS)
def test_names_that_readers_take_as_equal_are_kept_apart(
    to: str, kind: str, tmp_path: Path
) -> None:
    """They decode names, strip spaces and leave out suffixes, because tools do."""
    for number, names in enumerate(
        (
            ("a%20b.png", "a b.png"),
            (" a.png", "a.png"),
            ("a.png.jpg", "a.jpg.png", "a.png"),
            (" b.png", "c .png"),
        )
    ):
        images = [save_image(tmp_path / f"in{number}" / name, (6, 9)) for name in names]
        masks = {path: np.full((6, 9), i, np.uint8) for i, path in enumerate(images, start=1)}
        folder = write(tmp_path / f"out{number}", to, masks, shapes=kind)
        found, _ = read_back(tmp_path / f"out{number}", to)
        for path, labels in masks.items():
            np.testing.assert_array_equal(found[folder.base_names[path]], labels)


@pytest.mark.parametrize("name", [".a.png", "a\\b.png", "a\nb.png", "a\u2028b.png"])
def test_names_that_no_reader_finds_are_refused(name: str, tmp_path: Path) -> None:
    image = save_image(tmp_path / name, (6, 9))
    with pytest.raises(InputError, match="its name cannot be written into annotations: rename"):
        write(tmp_path / "out", "cvat", {image: np.ones((6, 9), np.uint8)})


@pytest.mark.parametrize(
    ("names", "to", "message"),
    [
        (("background", "_background_"), "coco", "'background' and '_background_' are both"),
        (("a", "__ignore__"), "labelme", "'__ignore__' has the name of ignored regions"),
        (("a", "b:c"), "cvat", "'b:c' cannot be in labelmap.txt"),
        (("a", "Unlabeled"), "cvat", "'Unlabeled' cannot be in labelmap.txt"),
        (("Background",), "yolo", "out: there is no class besides the background"),
    ],
)
def test_names_that_would_be_read_as_something_else_are_refused(
    names: tuple[str, ...], to: str, message: str, tmp_path: Path
) -> None:
    """Before anything is predicted or written."""
    image = save_image(tmp_path / "a.png", (4, 4))
    with pytest.raises(InputError, match=message):
        AnnotationFolder(tmp_path / "out", to, [image], Classes.make(names))
    assert not (tmp_path / "out").exists()


# --- files of others -------------------------------------------------------------------------


def correct(out: Path, to: str) -> Path:
    """Change an annotation as a person would in the tool, and return its file."""
    names = {"labelme": "a.json", "cvat": "SegmentationClass/a.png", "yolo": "labels/a.txt"}
    names |= {"coco": "annotations/instances_default.json", "label-studio": "tasks.json"}
    path = out / names[to]
    path.write_bytes(path.read_bytes() + b"\n")
    return path


@pytest.mark.parametrize("to", WRITERS)
def test_corrected_annotations_are_replaced_only_on_request(to: str, tmp_path: Path) -> None:
    image, out = save_image(tmp_path / "a.png", (48, 64)), tmp_path / "out"
    write(out, to, {image: blobs(0)})
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    write(out, to, {image: blobs(0)})  # nobody has changed anything
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    path = correct(out, to)
    content = path.read_bytes()
    with pytest.raises(InputError, match="exists and was not written by this command"):
        write(out, to, {image: blobs(1)})
    assert path.read_bytes() == content
    write(out, to, {image: blobs(1)}, overwrite=True, tolerance=0)
    np.testing.assert_array_equal(read_back(out, to)[0]["a"], blobs(1))


def test_files_of_an_earlier_call_leave_no_wrong_classes_behind(tmp_path: Path) -> None:
    """labels/a.txt numbers the classes of the first call, and data.yaml is that of the second."""
    first, second = (save_image(tmp_path / name, (48, 64)) for name in ("a.png", "b.png"))
    out, note = tmp_path / "out", tmp_path / "out" / "labels" / "mine.md"
    write(out, "yolo", {first: blobs(0)})
    note.write_text("mine")
    write(out, "yolo", {second: blobs(1)}, tolerance=0)
    assert {*read_back(out, "yolo")[0]} == {"b"}
    assert note.read_text() == "mine"
    path = out / "labels" / "b.txt"
    path.write_text(path.read_text() + "\n")
    for overwrite in (False, True):
        with pytest.raises(InputError, match=r"does not replace, such as labels/b\.txt"):
            write(out, "yolo", {first: blobs(0)}, overwrite=overwrite)


def test_a_manifest_removes_no_file_elsewhere(tmp_path: Path) -> None:
    image, out = save_image(tmp_path / "a.png", (48, 64)), tmp_path / "out"
    write(out, "labelme", {image: blobs(0)})
    victim = tmp_path / "precious.txt"
    victim.write_text("x")
    manifest = out / annotations.MANIFEST
    digest = annotations.sha256(victim)
    listed = {"../precious.txt": digest, str(victim): digest}
    manifest.write_text(json.dumps({"files": listed}))
    shutil.rmtree(out / annotations.STAGED, ignore_errors=True)
    write(out, "labelme", {image: blobs(0)}, overwrite=True)
    assert victim.read_text() == "x"


def test_labelme_files_may_lie_beside_the_originals(tmp_path: Path) -> None:
    image = save_image(tmp_path / "a.png", (48, 64))
    content = image.read_bytes()
    for _ in range(2):
        write(tmp_path, "labelme", {image: blobs(0)}, tolerance=0)
    assert image.read_bytes() == content
    np.testing.assert_array_equal(read_back(tmp_path, "labelme")[0]["a"], blobs(0))
    with pytest.raises(InputError, match=r"a\.png: lies in .* choose another --out"):
        write(tmp_path, "coco", {image: blobs(0)})


def test_a_kill_while_files_are_replaced_is_repaired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, out = save_image(tmp_path / "a.png", (48, 64)), tmp_path / "out"
    write(out, "yolo", {image: blobs(0)})
    replace, left = Path.replace, [2]

    def killed(self: Path, target: Path) -> Path:
        if annotations.STAGED in str(self):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            write(out, "yolo", {image: blobs(1)})
    write(out, "yolo", {image: blobs(1)}, tolerance=0)
    np.testing.assert_array_equal(read_back(out, "yolo")[0]["a"], blobs(1))


# --- prediction ------------------------------------------------------------------------------


class FromColors:
    """A runtime whose labels are the red channel of the image."""

    name = "colors"

    def logits(self, image: Any) -> np.ndarray[Any, Any]:
        return np.stack([image[..., 0] == value for value in range(4)]).astype(np.float32)

    def predict_labels(self, image: Any) -> Labels:
        return self.logits(image).argmax(axis=0).astype(np.uint8)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for seed in range(3):
        image = np.zeros((48, 64, 3), np.uint8)
        image[..., 0] = blobs(seed) % 4
        save_image(tmp_path / "images" / f"{seed}.png", (48, 64))
        Image.fromarray(image).save(tmp_path / "images" / f"{seed}.png")
    return tmp_path / "images"


def predictor(values: tuple[int, ...] = (0, 1, 2, 3)) -> Predictor:
    classes = Classes.make(NAMES, values=values, ignore=255)
    return Predictor(FromColors(), classes, network_id="colors")


@pytest.mark.parametrize("georeferenced", [False, True])
def test_outlines_beside_masks_are_a_dataset_too(
    georeferenced: bool, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The images are where they were; the masks and overlays beside the outlines are no images."""
    monkeypatch.chdir(tmp_path)
    if georeferenced:
        rasterio = pytest.importorskip("rasterio")
        transform = rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 5_400_000)
        for path in sorted(images.iterdir()):
            pixels = np.moveaxis(np.asarray(Image.open(path)), 2, 0)
            about = {"width": 64, "height": 48, "count": 3, "dtype": "uint8", "driver": "GTiff"}
            about |= {"crs": "EPSG:32633", "transform": transform}
            with rasterio.open(path.with_suffix(".tif"), "w", **about) as file:
                file.write(pixels)
            path.unlink()
    options = AnswerOptions(to="geojson", tolerance=0)
    predict_folder(predictor(), "images", "out", answers=options)
    found, classes = read_back(Path("out"), "geojson")
    assert classes.names == NAMES
    for seed in range(3):
        np.testing.assert_array_equal(found[str(seed)], blobs(seed) % 4)
    shutil.move(tmp_path / "out", tmp_path / "moved" / "out")  # the images cannot be found now
    with pytest.raises(InputError, match=r"0\.geojson: its image '.*/0\..*' does not exist"):
        read_layout(Path("moved/out"))
    shutil.copytree("images", "moved/out/images")
    found, _ = read_back(Path("moved/out"), "geojson")
    np.testing.assert_array_equal(found["1"], blobs(1) % 4)


@pytest.mark.parametrize("to", WRITERS)
def test_predictions_become_a_dataset(to: str, images: Path, tmp_path: Path) -> None:
    out, table = tmp_path / "out", tmp_path / "areas.json"
    kinds = WRITERS[to].KINDS
    options = AnswerOptions(
        to=to, table=table, min_area=3, tolerance=0 if kinds[0] == POLYGONS else 1
    )
    result = predict_folder(predictor((0, 7, 9, 200)), images, out, answers=options)
    assert result.written == 3
    masks = predictor()
    found, classes = read_back(out, to)
    assert classes.names == NAMES
    for seed in range(3):
        expected = masks(images / f"{seed}.png").clean(min_area=3).labels
        np.testing.assert_array_equal(found[str(seed)], expected)
    assert len(json.loads(table.read_text())["rows"]) == 12
    hidden = {path.name for path in out.iterdir() if path.name.startswith(".")}
    assert hidden == {annotations.MANIFEST}


def test_a_stopped_run_resumes_and_writes_all_images(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, options = tmp_path / "out", AnswerOptions(to="coco", tolerance=0)
    with monkeypatch.context() as patch:
        patch.setattr(annotations, "find_shapes", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            predict_folder(predictor(), images, out, answers=options)
    assert not (out / "annotations").exists()
    other = predictor()
    monkeypatch.setattr(other.runtime, "predict_labels", None)  # all masks are there
    result = predict_folder(other, images, out, answers=options)
    assert (result.kept, result.written) == (3, 0)
    found, _ = read_back(out, "coco")
    np.testing.assert_array_equal(found["1"], blobs(1) % 4)


def test_an_image_that_cannot_be_read_is_left_out(images: Path, tmp_path: Path) -> None:
    (images / "1.png").write_bytes(b"\x89PNG broken")
    result = predict_folder(
        predictor(), images, tmp_path / "out", answers=AnswerOptions(to="labelme")
    )
    assert len(result.faults) == 1
    assert {*read_back(tmp_path / "out", "labelme")[0]} == {"0", "2"}


def test_the_command_writes_what_train_reads(
    cli: Cli, tiny_bundle: Path, make_folder_data: MakeData, tmp_path: Path
) -> None:
    make_folder_data(tmp_path / "data", count=3)
    call = ("predict", tiny_bundle, "data/images", "--runtime", "torch", "--out", "o")
    done = cli(*call, "--to", "label-studio", "--shapes", "polygons", "--tolerance", "0.5")
    assert done.code == 0, done.err
    assert "3 images and their annotations (label-studio, polygons) written to o" in done.out
    (tmp_path / "o" / "tasks.json").write_text("[]")
    again = cli(*call, "--to", "label-studio")
    assert again.code == 2
    assert "exists and was not written by this command" in again.err
    assert len(again.err.splitlines()) == 1
    assert (tmp_path / "o" / "tasks.json").read_text() == "[]"


@pytest.mark.parametrize(
    "to", [to if to == "coco" else pytest.param(to, marks=pytest.mark.slow) for to in WRITERS]
)
def test_train_takes_the_folder_as_it_is(to: str, images: Path, tmp_path: Path) -> None:
    predict_folder(predictor(), images, tmp_path / "out", answers=AnswerOptions(to=to))
    run = pixelwise.train(
        tmp_path / "out",
        out=tmp_path / "run",
        backbone="tiny",
        weights="none",
        epochs=1,
        batch_size=1,
        crop=(32, 32),
        quiet=True,
    )
    assert pixelwise.load(run.best, runtime="torch").classes.names == NAMES


# --- the tools' own parsers ------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
@pytest.mark.parametrize("kind", [POLYGONS, MASKS])
def test_pycocotools_draws_the_same_objects(kind: str, tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    labels = blobs(3)
    image = save_image(tmp_path / "a.png", labels.shape)
    write(tmp_path / "out", "coco", {image: labels}, shapes=kind, tolerance=0)
    data = coco.COCO(str(tmp_path / "out" / "annotations" / "instances_default.json"))
    (about,) = data.loadImgs(data.getImgIds())
    assert (tmp_path / "out" / "images" / about["file_name"]).is_file()
    drawn = np.zeros_like(labels)
    for entry in data.loadAnns(data.getAnnIds()):
        name = data.cats[entry["category_id"]]["name"]
        covered = data.annToMask(entry).astype(bool)
        assert kind == POLYGONS or covered.sum() == entry["area"]
        drawn[covered] = NAMES.index(name) if name in NAMES else IGNORE
    # pycocotools draws polygons on a grid of fifths of a pixel, and moves borders by up to one.
    assert (drawn != labels).mean() <= (0 if kind == MASKS else 0.05)


@pytest.mark.parametrize("seed", range(2))
def test_an_object_of_cvat_has_one_class(seed: int, tmp_path: Path) -> None:
    """With at most 255 objects, each is a component; with more, small ones share a number."""
    rng = np.random.default_rng(0)
    labels = blobs(1) if seed else rng.integers(0, 4, (48, 64)).astype(np.uint8)
    image = save_image(tmp_path / "a.png", labels.shape)
    write(tmp_path / "out", "cvat", {image: labels})
    with Image.open(tmp_path / "out" / "SegmentationObject" / "a.png") as file:
        _, objects = np.unique(np.asarray(file).reshape(-1, 3), axis=0, return_inverse=True)
    pairs = np.unique(np.stack([objects, labels.reshape(-1)]), axis=1)
    assert len({*pairs[0].tolist()}) == pairs.shape[1] <= 256
    count = sum(int(ndimage.label(labels == value)[1]) for value in (1, 2, 3, IGNORE))
    assert pairs.shape[1] == min(count, 255) + 1


@given(arrays(np.bool_, SIZE))
def test_encoded_runs_are_decoded(mask: np.ndarray[Any, np.dtype[np.bool_]]) -> None:
    size = mask.shape
    text = rle.encode_compressed(mask)
    np.testing.assert_array_equal(rle.CocoRLE(1, text, size).cover(size), mask)
    for right in (0, 2):
        wide = np.pad(mask, ((0, 0), (3, right)))
        assert rle.encode_compressed(mask, 3, right) == rle.encode_compressed(wide)
    packed = bytes(rle.encode_brush(mask))
    np.testing.assert_array_equal(rle.BrushRLE(1, packed, size).cover(size), mask)


def test_long_runs_are_divided() -> None:
    mask = np.ones((300, 400), bool)
    mask[120, 7] = False
    packed = bytes(rle.encode_brush(mask))
    np.testing.assert_array_equal(rle.BrushRLE(1, packed, mask.shape).cover(mask.shape), mask)
