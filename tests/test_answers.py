"""Tables, polygons, rasters of probabilities and cleaned masks."""

from __future__ import annotations

import csv
import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import pixelwise
from fixture_types import Cli, MakeData
from pixelwise import AnswerOptions, InputError, Predictor
from pixelwise.data.classes import Classes
from pixelwise.inference import Segmentation, predict_folder
from pixelwise.inference.batch import folder_journal, large_images
from pixelwise.inference.batch.image_work import ImageWork
from pixelwise.inference.batch.large_images import predict_large_images
from pixelwise.inference.batch.result_mark import is_result
from pixelwise.interrupts import StoppedError
from pixelwise.regions import streamed_areas
from pixelwise.regions.areas import measure_areas
from pixelwise.regions.georeference import read_georeference
from pixelwise.regions.polygons import find_polygons
from pixelwise.weights.stored_calibration import StoredCalibration

ndimage = pytest.importorskip("scipy.ndimage")

CLASSES = Classes.make(("background", "blob", "ring"), colors=((0, 0, 0), (255, 0, 0), (0, 255, 0)))
SIZE = (40, 48)


class FromColors:
    """A runtime whose logits are largest for the class that a pixel of pure color stands for."""

    name = "colors"

    def logits(self, image: Any) -> np.ndarray[Any, Any]:
        red, green = image[..., 0] > 128, image[..., 1] > 128
        chosen = np.stack([~red & ~green, red, green]).astype(np.float32)
        return np.ascontiguousarray(chosen * (1 + image[..., 2] / np.float32(64)))

    def predict_labels(self, image: Any) -> np.ndarray[Any, Any]:
        return self.logits(image).argmax(axis=0).astype(np.uint8)


def predictor(calibration: StoredCalibration | None = None) -> Predictor:
    return Predictor(FromColors(), CLASSES, network_id="colors", calibration=calibration)


def draw(seed: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return an image with blobs, a ring with a hole and single pixels, and its labels."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(SIZE, np.uint8)
    for _ in range(5):
        y, x = rng.integers(0, 30, 2)
        labels[y : y + rng.integers(2, 9), x : x + rng.integers(2, 9)] = 1
    labels[25:36, 30:44] = 2
    labels[29:32, 34:39] = 0  # the hole
    labels[rng.integers(0, 40, 4), rng.integers(0, 25, 4)] = 2
    blue = rng.integers(0, 256, SIZE, dtype=np.uint8)
    image = np.stack([(labels == 1) * 255, (labels == 2) * 255, blue], axis=-1).astype(np.uint8)
    return image, labels


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for seed in range(4):
        Image.fromarray(draw(seed)[0]).save(folder / f"{seed}.png")
    return folder


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def counted(labels: np.ndarray[Any, Any], index: int) -> tuple[int, int, int]:
    """Count pixels, components and the pixels of the largest one by flooding, one at a time."""
    left = labels == index
    sizes = []
    while left.any():
        stack = [tuple(np.argwhere(left)[0])]
        left[stack[0]] = False
        size = 0
        while stack:
            y, x = stack.pop()
            size += 1
            for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if 0 <= near[0] < left.shape[0] and 0 <= near[1] < left.shape[1] and left[near]:
                    left[near] = False
                    stack.append(near)
        sizes.append(size)
    return sum(sizes), len(sizes), max(sizes, default=0)


# --- tables ----------------------------------------------------------------------------------


def test_the_table_states_what_is_in_the_masks(images: Path, tmp_path: Path) -> None:
    table, out = tmp_path / "areas.csv", tmp_path / "out"
    result = predict_folder(predictor(), images, out, answers=AnswerOptions(table=table))
    rows = read_csv(table)
    assert [(row["image"], row["class"]) for row in rows] == [
        (str(images / f"{seed}.png"), name) for seed in range(4) for name in CLASSES.names
    ]
    for row in rows:
        image, labels = draw(int(Path(row["image"]).stem))
        assert np.array_equal(
            np.asarray(Image.open(out / f"{Path(row['image']).stem}.png")), labels
        )
        index = CLASSES.names.index(row["class"])
        found = (int(row["pixels"]), int(row["components"]), int(row["largest_component"]))
        assert found == counted(labels, index)
        assert float(row["share"]) == pytest.approx(found[0] / labels.size)
        scale = 1 + image[..., 2].astype(np.float64) / 64
        sure = np.exp(scale) / (np.exp(scale) + 2)
        assert float(row["mean_confidence"]) == pytest.approx(
            sure[labels == index].mean(), abs=1e-6
        )
        assert row["square_meters"] == row["flagged"] == ""
    assert len(result.rows) == len(rows)


def test_all_formats_of_a_table_hold_the_same_rows(images: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    tables = {}
    for suffix in ("csv", "json", "parquet"):
        path = tmp_path / f"areas.{suffix}"
        options = AnswerOptions(table=path, pixel_size=0.5, min_area=3)
        predict_folder(predictor(), images, tmp_path / "out", answers=options)
        tables[suffix] = path
    rows = json.loads(tables["json"].read_text())["rows"]
    assert parquet.read_table(tables["parquet"]).to_pylist() == rows
    text = [{k: "" if v is None else str(v) for k, v in row.items()} for row in rows]
    assert read_csv(tables["csv"]) == text
    assert all(row["square_meters"] == row["pixels"] * 0.25 for row in rows)
    assert {row["cleaned"] for row in rows} == {"min_area 3 pixels"}
    assert json.loads(tables["json"].read_text())["options"]["min_area"] == "3"


def test_python_gives_the_same_table_and_polygons(images: Path, tmp_path: Path) -> None:
    folder = pixelwise.predict_folder(
        predictor(), images, tmp_path / "out", table=tmp_path / "a.json", min_area=3, quiet=True
    )
    result = predictor()(images / "0.png").clean(min_area=3)
    shown = [{key: row[key] for key in result.table()[0]} for row in folder.rows[:3]]
    assert result.table() == shown
    assert predictor().segment(images / "0.png").table()[0]["mean_confidence"] is None


@pytest.mark.parametrize("stop", [1, 3])
def test_a_resumed_run_writes_the_table_of_all_images(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    """The rows of images that an earlier run finished come from its journal."""
    monkeypatch.setattr(folder_journal, "COMMIT_SECONDS", 0.0)
    options = AnswerOptions(table=tmp_path / "areas.csv")
    finished = []

    def finish(work: ImageWork, path: Path, result: Segmentation) -> Any:
        if len(finished) == stop:
            raise OSError(28, "No space left on device")
        finished.append(path)
        return original(work, path, result)

    original = ImageWork.finish
    with monkeypatch.context() as patch:
        patch.setattr(ImageWork, "finish", finish)
        with pytest.raises(pixelwise.PixelwiseError):
            predict_folder(predictor(), images, tmp_path / "out", answers=options)
    assert not options.table.exists()
    result = predict_folder(predictor(), images, tmp_path / "out", answers=options)
    assert result.kept >= 1
    predict_folder(
        predictor(), images, tmp_path / "other", answers=AnswerOptions(table=tmp_path / "whole.csv")
    )
    assert options.table.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_run_with_other_answers_is_not_resumed(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The masks of the earlier run are not cleaned, so they must not be kept."""
    out = tmp_path / "out"

    def stop(*_: object) -> None:
        raise StoppedError("stopped", signal_number=2)

    with monkeypatch.context() as patch:
        patch.setattr(folder_journal.Journal, "finish", stop)
        with pytest.raises(StoppedError):
            predict_folder(predictor(), images, out)
    result = predict_folder(predictor(), images, out, answers=AnswerOptions(min_area=3))
    assert (result.kept, result.outdated) == (0, True)


def test_an_image_that_fails_is_missing_in_the_table(images: Path, tmp_path: Path) -> None:
    (images / "1.png").write_bytes(b"no image")
    options = AnswerOptions(table=tmp_path / "areas.csv")
    result = predict_folder(predictor(), images, tmp_path / "out", answers=options)
    assert len(result.faults) == 1
    assert {Path(row["image"]).stem for row in read_csv(options.table)} == {"0", "2", "3"}


def test_tables_replace_only_tables(images: Path, tmp_path: Path) -> None:
    for name in ("areas.csv", "areas.json"):
        path = tmp_path / name
        path.write_text("image,notes\n")
        options = AnswerOptions(table=path)
        with pytest.raises(InputError, match="was not written by this command"):
            predict_folder(predictor(), images, tmp_path / "out", answers=options)
        assert path.read_text() == "image,notes\n"
        assert not (tmp_path / "out").exists()
        path.unlink()
        for _ in range(2):
            predict_folder(predictor(), images, tmp_path / "out", answers=options)
        predict_folder(predictor(), images, tmp_path / "out", answers=options, overwrite=True)
        path.unlink()
        (tmp_path / "out").rename(tmp_path / f"out of {name}")


# --- cleaning --------------------------------------------------------------------------------


def test_small_components_and_holes_disappear_from_all_results(
    images: Path, tmp_path: Path
) -> None:
    pytest.importorskip("shapely")
    pytest.importorskip("pyogrio")
    pytest.importorskip("tifffile")
    out = tmp_path / "out"
    options = AnswerOptions(
        table=tmp_path / "areas.json", to="geojson", tolerance=0, min_area=4, fill_holes=True
    )
    result = predict_folder(predictor(), images, out, answers=options)
    for seed in range(4):
        mask = np.asarray(Image.open(out / f"{seed}.png"))
        assert (mask[25:36, 30:44] == 2).all()  # the hole is filled
        rows = result.rows[3 * seed : 3 * seed + 3]
        for index, row in enumerate(rows):
            found = row["pixels"], row["components"], row["largest_component"]
            assert found == counted(mask, index)
        sizes = [ndimage.sum_labels(mask == i, *ndimage.label(mask == i)) for i in range(3)]
        assert min(np.min(size) for size in sizes) >= 0
        content = json.loads((out / f"{seed}.geojson").read_text())
        assert content["description"] == "fill_holes of background, min_area 4 pixels"
        areas = sorted(feature["properties"]["pixels"] for feature in content["features"])
        assert areas[0] >= 4
        assert sum(areas) == (mask != 0).sum()
        png = Image.open(out / f"{seed}.png")
        assert png.text["Description"] == content["description"]


def test_square_meters_need_a_pixel_size(images: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"0.png: min area 2m2: .* give the area in pixels"):
        predict_folder(
            predictor(), images, tmp_path / "out", answers=AnswerOptions(min_area="2 m2")
        )
    by_meters = AnswerOptions(min_area="1m2", pixel_size=0.5)
    predict_folder(predictor(), images, tmp_path / "a", answers=by_meters, overlay=False)
    by_pixels = AnswerOptions(min_area=4)
    predict_folder(predictor(), images, tmp_path / "b", answers=by_pixels, overlay=False)
    for seed in range(4):
        masks = [np.asarray(Image.open(tmp_path / x / f"{seed}.png")) for x in "ab"]
        assert np.array_equal(*masks)
        assert not np.array_equal(masks[0], draw(seed)[1])


def test_holes_need_a_background() -> None:
    other = Predictor(FromColors(), Classes.make(("sky", "blob", "ring")))
    with pytest.raises(InputError, match="background 'background': is no class of the network"):
        predict_folder(other, "x.png", answers=AnswerOptions(fill_holes=True))
    image, _ = draw(0)
    filled = other(image).clean(fill_holes=True, background="sky")
    assert (filled.labels[25:36, 30:44] == 2).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_area": "-1"}, "min area -1"),
        ({"min_area": "5km2"}, "min area 5km2"),
        ({"min_area": "nan"}, "min area nan"),
        ({"to": "shp"}, "to 'shp': allowed are labelme, coco, cvat, label-studio, yolo, geojson"),
        ({"to": "yolo", "shapes": "masks"}, "shapes 'masks': yolo has polygons"),
        ({"shapes": "masks"}, "shapes masks: has no effect without"),
        ({"to": "geojson", "shapes": "masks"}, "shapes masks: has no effect without"),
        ({"to": "cvat", "tolerance": 2.0}, "tolerance 2.0: has no effect without polygons"),
        ({"to": "coco", "geopackage": True}, "geopackage: has no effect without to geojson"),
        ({"to": "coco", "confidence": True}, "predict them into another folder"),
        ({"to": "coco", "background": "sky"}, "has no effect without to geojson or fill holes"),
        ({"to": "geojson", "tolerance": -1.0}, "tolerance -1.0"),
        ({"tolerance": 2.0}, "has no effect without polygons"),
        ({"raster_type": "float16"}, "has no effect without rasters"),
        ({"confidence": True, "raster_type": "int8"}, "allowed are uint8 and float16"),
        ({"pixel_size": 1.0}, "has no effect without a table"),
        ({"table": "x.csv", "pixel_size": 0.0}, "pixel size 0.0"),
        ({"background": "sky"}, "has no effect without to geojson or fill holes"),
        ({"table": "areas.xlsx"}, "suffix of a table must be .csv, .json, .parquet"),
        ({"table": "no/such/folder/areas.csv"}, "cannot be written"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        AnswerOptions(**options)


# --- polygons and rasters --------------------------------------------------------------------


def write_geotiff(path: Path, pixels: np.ndarray[Any, Any], *, crs: str = "EPSG:32633") -> Any:
    rasterio = pytest.importorskip("rasterio")
    transform = rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 5_400_000)
    height, width, count = pixels.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=height,
        width=width,
        count=count,
        dtype="uint8",
        crs=crs,
        transform=transform,
        photometric="rgb",
    ) as file:
        file.write(np.moveaxis(pixels, 2, 0))
    return transform


def test_polygons_of_a_geotiff_lie_where_the_image_lies(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    from rasterio.features import rasterize

    pyogrio = pytest.importorskip("pyogrio.raw")
    shapely = pytest.importorskip("shapely")
    image, labels = draw(0)
    transform = write_geotiff(tmp_path / "field.tif", image)
    for suffix in (".geojson", ".gpkg"):
        options = AnswerOptions(
            table=tmp_path / "areas.json",
            to="geojson",
            geopackage=suffix == ".gpkg",
            tolerance=0,
            min_area="0.5m2",
        )
        result = predict_folder(predictor(), tmp_path / "field.tif", tmp_path, answers=options)
        meta, _, geometry, fields = pyogrio.read(tmp_path / f"field{suffix}")
        assert rasterio.crs.CRS.from_user_input(meta["crs"]).to_epsg() == 32633
        for outline in shapely.from_wkb(geometry):
            assert outline.exterior.is_ccw
            assert not any(hole.is_ccw for hole in outline.interiors)
        values = [CLASSES.names.index(name) for name in fields[list(meta["fields"]).index("class")]]
        shapes = zip(shapely.from_wkb(geometry), values, strict=True)
        mask = np.asarray(Image.open(tmp_path / "field.png"))
        assert np.array_equal(rasterize(shapes, SIZE, transform=transform), mask)
        assert (mask != labels).any()  # single pixels are smaller than 0.5 square meters
        for row in result.rows:
            assert row["square_meters"] == pytest.approx(row["pixels"] * 0.25, rel=1e-3)


@pytest.mark.parametrize("suffix", [".geojson", ".gpkg"])
@pytest.mark.parametrize("reader", ["geopandas", "fiona"])
def test_other_readers_find_the_class_of_each_pixel_at_its_place(
    tmp_path: Path, reader: str, suffix: str
) -> None:
    """The center of each pixel lies in a polygon of its class, and no other."""
    package, rasterio, shapely = map(pytest.importorskip, (reader, "rasterio", "shapely"))
    write_geotiff(tmp_path / "field.tif", draw(0)[0])
    options = AnswerOptions(polygons=suffix, tolerance=0, min_area=3)
    predict_folder(predictor(), tmp_path / "field.tif", tmp_path, answers=options)
    path = tmp_path / f"field{suffix}"
    if reader == "geopandas":
        frame = package.read_file(path)
        crs, outlines, names = frame.crs, list(frame.geometry), list(frame["class"])
    else:
        with package.open(path) as file:
            crs, rows = file.crs.to_wkt(), list(file)
        outlines = [shapely.geometry.shape(row["geometry"]) for row in rows]
        names = [row["properties"]["class"] for row in rows]
    assert rasterio.crs.CRS.from_user_input(crs).to_epsg() == 32633
    mask = np.asarray(Image.open(tmp_path / "field.png"))
    rows, columns = np.indices(mask.shape)
    with rasterio.open(tmp_path / "field.tif") as file:
        points = shapely.points(*file.xy(rows.ravel(), columns.ravel()))
    within = np.stack([shapely.contains(outline, points) for outline in outlines])
    found = within.T @ np.array([CLASSES.names.index(name) for name in names])
    assert within.sum(0).max() == 1
    assert np.array_equal(found.reshape(mask.shape), mask)
    assert set(np.unique(mask)) == set(range(len(CLASSES)))


def test_a_geopackage_stays_a_sound_database_and_is_recognized(
    images: Path, tmp_path: Path
) -> None:
    pytest.importorskip("pyogrio")
    options = AnswerOptions(to="geojson", geopackage=True, min_area=2)
    for _ in range(2):  # the second run replaces the files of the first
        predict_folder(predictor(), images, tmp_path / "out", answers=options)
    path = tmp_path / "out" / "0.gpkg"
    assert is_result(path)
    with sqlite3.connect(path) as database:
        assert database.execute("pragma integrity_check").fetchone() == ("ok",)
        (text,) = database.execute("select description from gpkg_contents").fetchone()
        assert text == "min_area 2 pixels"
        database.execute("delete from gpkg_contents")
    database.close()
    assert not is_result(path)
    with pytest.raises(InputError, match="was not written by this command"):
        predict_folder(predictor(), images, tmp_path / "out", answers=options)


def test_corrected_polygons_are_not_replaced(images: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyogrio")
    options = AnswerOptions(to="geojson")
    predict_folder(predictor(), images, tmp_path, answers=options)
    path = tmp_path / "2.geojson"
    assert json.loads(path.read_text())["type"] == "FeatureCollection"
    path.write_text(path.read_text().replace("blob", "road", 1))
    with pytest.raises(InputError, match=r"2\.geojson: exists and was not written"):
        predict_folder(predictor(), images, tmp_path, answers=options)


@pytest.mark.parametrize("raster_type", ["uint8", "float16"])
def test_rasters_hold_the_probabilities_and_the_georeference(
    tmp_path: Path, raster_type: str
) -> None:
    rasterio = pytest.importorskip("rasterio")
    image, labels = draw(1)
    transform = write_geotiff(tmp_path / "field.tif", image)
    options = AnswerOptions(probabilities=True, confidence=True, raster_type=raster_type)
    out = tmp_path / "out"
    for _ in range(2):
        predict_folder(predictor(), tmp_path / "field.tif", out, answers=options)
    expected = predictor()(image).probabilities
    with rasterio.open(out / "field_probabilities.tif") as file:
        scale = 255 if raster_type == "uint8" else 1
        assert file.descriptions == CLASSES.names
        assert np.abs(file.read() / scale - expected).max() <= (0.5 / 255 + 1e-6)
        assert (file.crs.to_epsg(), file.transform) == (32633, transform)
        assert file.scales == ((1 / 255,) * 3 if scale == 255 else (1.0,) * 3)
    with rasterio.open(out / "field_confidence.tif") as file:
        chosen = np.take_along_axis(expected, labels[None].astype(int), axis=0)
        assert np.abs(file.read() / scale - chosen).max() <= (0.5 / 255 + 1e-6)
        assert file.transform == transform


# --- command line ----------------------------------------------------------------------------


def test_predict_prints_a_summary(
    cli: Cli, tiny_bundle: Path, make_folder_data: MakeData, tmp_path: Path
) -> None:
    make_folder_data(tmp_path / "data")
    call = ("predict", tiny_bundle, "data/images", "--runtime", "torch", "--out", "o")
    done = cli(*call, "--table", "areas.csv", "--pixel-size", "2")
    assert done.code == 0, done.err
    assert "areas written to areas.csv" in done.out
    rows = read_csv(tmp_path / "areas.csv")
    for name in {row["class"] for row in rows}:
        total = sum(int(row["pixels"]) for row in rows if row["class"] == name)
        (line,) = [line for line in done.out.splitlines() if line.startswith(f"│ {name} ")]
        cells = [cell.strip() for cell in line.split("│")[1:-1]]
        assert cells[2] == str(total)
        assert float(cells[-1]) == pytest.approx(total * 4, rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--geopackage",), "geopackage: has no effect without to geojson"),
        (("--large", "--min-area", "5"), "--min-area or --fill-holes: needs the full image"),
        (("--large", "--to", "labelme"), "--to labelme: needs the full image"),
        (("--large", "--confidence"), "--probabilities or --confidence: needs the full image"),
        (("--fill-holes",), "background 'background': is no class of the network"),
        (("--table", "a.txt"), "a.txt: the suffix of a table must be"),
    ],
)
def test_predict_refuses_in_one_line(
    cli: Cli,
    tiny_bundle: Path,
    make_folder_data: MakeData,
    tmp_path: Path,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    make_folder_data(tmp_path / "data", count=1)
    call = ("predict", tiny_bundle, "data/images", "--runtime", "torch", "--out", "o")
    done = cli(*call, *arguments)
    assert done.code == 2
    assert message in done.err
    assert len(done.err.splitlines()) == 1
    assert not (tmp_path / "o").exists()


def test_images_and_videos_need_tables_of_their_own(
    cli: Cli, tiny_bundle: Path, make_folder_data: MakeData, tmp_path: Path
) -> None:
    pytest.importorskip("av")
    make_folder_data(tmp_path / "data", count=1)
    (tmp_path / "clip.mp4").write_bytes(b"x")
    done = cli("predict", tiny_bundle, "data/images", "clip.mp4", "--table", "a.csv")
    assert done.code == 2
    assert "predict them in two calls" in done.err


# --- large images and videos -----------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 7, 40])
@pytest.mark.parametrize("seed", [0, 1])
def test_areas_of_strips_equal_those_of_the_whole(
    rows: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Components that wind through several strips are counted once."""
    monkeypatch.setattr(streamed_areas, "STRIP_PIXELS", 5 * 30)
    rng = np.random.default_rng(seed)
    labels = rng.choice(np.array([0, 1, 2, 255], np.uint8), (40, 30), p=(0.5, 0.4, 0.05, 0.05))
    areas = streamed_areas.StreamedAreas(CLASSES)
    for top in range(0, 40, rows):
        areas.add(labels[top : top + rows])
    assert areas.finish(0.25) == measure_areas(labels, CLASSES, pixel_area=0.25)


def test_a_large_image_has_the_same_areas(tmp_path: Path) -> None:
    pytest.importorskip("tifffile")
    image, labels = draw(2)
    write_geotiff(tmp_path / "field.tif", image)
    options = AnswerOptions(table=tmp_path / "areas.json")
    result = predict_large_images(
        predictor(), tmp_path / "field.tif", tmp_path / "o", answers=options
    )
    assert len(result.rows) == 3
    for index, row in enumerate(json.loads(options.table.read_text())["rows"]):
        found = row["pixels"], row["components"], row["largest_component"]
        assert found == counted(labels, index)
        assert row["mean_confidence"] is None
        assert row["square_meters"] == pytest.approx(row["pixels"] * 0.25, rel=1e-3)


@pytest.mark.parametrize("tolerance", [0, 1.0])
def test_a_large_image_has_the_same_polygons(tmp_path: Path, tolerance: float) -> None:
    """They are traced from the written mask instead of an array, and have no confidence."""
    pytest.importorskip("tifffile")
    shapely = pytest.importorskip("shapely")
    raw = pytest.importorskip("pyogrio").raw
    image, labels = draw(2)
    write_geotiff(tmp_path / "field.tif", image)
    place = read_georeference(tmp_path / "field.tif")
    options = AnswerOptions(to="geojson", geopackage=True, tolerance=tolerance)
    call = (tmp_path / "field.tif", tmp_path / "o")
    assert predict_large_images(predictor(), *call, answers=options).written == 1
    info, _, shapes, (names, pixels, confidence) = raw.read(tmp_path / "o" / "field.gpkg")
    wanted = find_polygons(labels, CLASSES, tolerance=0, georeference=place)
    assert info["crs"] == place.crs
    assert np.isnan(confidence).all()
    # Each outline is simplified by itself: borders that two components share can differ slightly.
    outlines = shapely.normalize(shapely.from_wkb(shapes))
    exact = [(p.name, p.pixels, shapely.normalize(p.outline)) for p in wanted]
    for name, size, outline in zip(names, pixels.tolist(), outlines, strict=True):
        distance, nearest = min(
            (shapely.hausdorff_distance(outline.boundary, other[2].boundary), number)
            for number, other in enumerate(exact)
            if other[:2] == (name, size)
        )
        assert distance <= tolerance * 0.5  # meters per pixel
        del exact[nearest]
    assert not exact


def test_a_resumed_large_image_has_the_areas_of_all_strips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The strips that an earlier run finished are not predicted again, but they are measured."""
    pytest.importorskip("tifffile")
    image, labels = draw(2)
    write_geotiff(tmp_path / "field.tif", image)
    options = AnswerOptions(table=tmp_path / "areas.json")

    def fill_the_disk(path: Path, strips: Any, **_: Any) -> None:
        assert sum(len(strip) for strip in strips) == SIZE[0]
        raise OSError(28, "No space left on device")

    call = (tmp_path / "field.tif", tmp_path / "o")
    with monkeypatch.context() as patch:
        patch.setattr(large_images, "write_mask_tiff", fill_the_disk)
        with pytest.raises(pixelwise.PixelwiseError, match="cannot be written"):
            predict_large_images(predictor(), *call, answers=options)
    assert not options.table.exists()
    other = predictor()
    monkeypatch.setattr(other.runtime, "logits", None)
    for index, row in enumerate(predict_large_images(other, *call, answers=options).rows):
        found = row["pixels"], row["components"], row["largest_component"]
        assert found == counted(labels, index)


def test_a_table_of_a_video_has_one_row_per_frame_and_class(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    from pixelwise.inference.batch.video import predict_video

    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=5, options={"crf": "0"})
        stream.width, stream.height, stream.pix_fmt = 48, 40, "yuv444p"
        for seed in range(3):
            frame = av.VideoFrame.from_ndarray(draw(seed)[0], format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    options = AnswerOptions(table=tmp_path / "areas.csv", min_area=4)
    result = predict_video(
        predictor(), tmp_path / "clip.mp4", tmp_path / "o", masks=True, answers=options
    )
    assert [(row["frame"], row["class"]) for row in result.rows] == [
        (number, name) for number in (1, 2, 3) for name in CLASSES.names
    ]
    for row in result.rows:
        mask = np.asarray(Image.open(tmp_path / "o" / "clip_masks" / f"{row['frame']:06d}.png"))
        found = row["pixels"], row["components"], row["largest_component"]
        assert found == counted(mask, CLASSES.names.index(row["class"]))
        assert not 0 < row["largest_component"] < 4
    for wrong in (AnswerOptions(to="geojson"), AnswerOptions(confidence=True)):
        with pytest.raises(InputError, match="not for videos"):
            predict_video(predictor(), tmp_path / "clip.mp4", tmp_path / "p", answers=wrong)
