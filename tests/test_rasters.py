"""Training from large rasters: windows, labels on their grid, spatial blocks, refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import pixelwise
from pixelwise.data.convert_dataset import convert_data
from pixelwise.data.dataset import SegmentationData, open_dataset
from pixelwise.data.image_decoding import warnings_silenced
from pixelwise.data.rasters import raster_file
from pixelwise.data.rasters.blocks import RasterWindow
from pixelwise.errors import InputError

rasterio = pytest.importorskip("rasterio")
pytest.importorskip("rasterio.warp")
shapely = pytest.importorskip("shapely")
pyogrio = pytest.importorskip("pyogrio")
Affine = pytest.importorskip("affine").Affine

from raster_files import (  # noqa: E402
    HEIGHT,
    ORIGIN,
    PIXEL,
    UTM33,
    WIDTH,
    noise,
    square,
    write_geojson,
    write_raster,
)


def state(root: Path, text: str) -> None:
    (root / "data.toml").write_text(text)


LABELS = 'labels = { path = "labels.geojson", attribute = "kind" }'
TOML = f'[[rasters]]\nimage = "a.tif"\n{LABELS}\n'
FEATURES = [
    (square(20, 30), {"kind": "house"}),
    (square(40, 50), {"kind": "barn"}),
    (square(200, 300), {"kind": "house"}),
    (square(140, 220), {"kind": "barn"}),
]


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A raster with four squares, of which the first two overlap."""
    write_raster(tmp_path / "a.tif", noise())
    write_geojson(tmp_path / "labels.geojson", FEATURES)
    state(tmp_path, TOML)
    return tmp_path


def expected(house: int = 2, barn: int = 1) -> NDArray[np.uint8]:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[20:60, 30:70] = house
    mask[40:80, 50:90] = barn
    mask[200:240, 300:340] = house
    mask[140:180, 220:260] = barn
    return mask


def assemble(
    data: SegmentationData, stem: str = "a", size: tuple[int, int] = (HEIGHT, WIDTH)
) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Put the windows of a raster together again; what is in no window is 0 and 99."""
    image = np.zeros((*size, data.pixels.channels), np.float32)
    mask = np.full(size, 99, np.uint8)
    for sample in (s for found in data.splits.values() for s in found):
        assert isinstance(sample.part, RasterWindow)
        if sample.part.raster.path.stem == stem:
            top, left, height, width = sample.part.window
            place = np.s_[top : top + height, left : left + width]
            assert (mask[place] == 99).all()  # windows do not overlap
            image[place], mask[place] = data.read(sample)
    return image, mask


def test_windows_show_the_image_and_its_polygons(plain: Path) -> None:
    data = open_dataset(plain)
    image, mask = assemble(data)
    assert data.classes.names == ("background", "barn", "house")
    np.testing.assert_array_equal(image, noise())
    np.testing.assert_array_equal(mask, expected())
    counts = sum(data.pixel_counts.values())
    np.testing.assert_array_equal(counts, np.bincount(expected().reshape(-1)))


def test_the_later_of_two_overlapping_polygons_wins_also_over_an_earlier_file(plain: Path) -> None:
    write_geojson(plain / "labels.geojson", FEATURES[::-1])
    mask = assemble(open_dataset(plain))[1]
    assert mask[50, 60] == 2  # house, which is now the last
    write_geojson(plain / "more.geojson", [(square(20, 30, 60), {})])
    state(
        plain,
        '[[rasters]]\nimage = "a.tif"\nlabels = [{ path = "labels.geojson", attribute = "kind" }, '
        '{ path = "more.geojson", class = "yard" }]\n',
    )
    data = open_dataset(plain)
    assert data.classes.names == ("background", "barn", "house", "yard")
    assert (assemble(data)[1][20:80, 30:90] == 3).all()


@pytest.mark.parametrize("suffix", ["geojson", "gpkg", "shp"])
def test_labels_in_another_reference_system_lie_at_the_same_place(plain: Path, suffix: str) -> None:
    shapes = [shape for shape, _ in FEATURES]
    moved = [
        shapely.transform(
            shape,
            lambda points: np.stack(rasterio.warp.transform(UTM33, "EPSG:4326", *points.T), axis=1),
        )
        for shape in shapes
    ]
    pyogrio.raw.write(
        plain / f"labels.{suffix}",
        shapely.to_wkb(np.array(moved)),
        [np.array([properties["kind"] for _, properties in FEATURES], dtype=object)],
        ["kind"],
        driver={"geojson": "GeoJSON", "gpkg": "GPKG", "shp": "ESRI Shapefile"}[suffix],
        geometry_type="Polygon",
        crs="EPSG:4326",
        **({"COORDINATE_PRECISION": 10} if suffix == "geojson" else {}),
    )
    state(plain, TOML.replace("labels.geojson", f"labels.{suffix}"))
    mask = assemble(open_dataset(plain))[1]
    assert (mask != expected()).sum() <= 20  # of pixels whose center is on an edge


def test_a_raster_without_reference_system_needs_a_statement(plain: Path) -> None:
    write_raster(plain / "a.tif", noise(), crs=None)
    with pytest.raises(
        InputError,
        match=r"a\.tif: has no reference system, but labels\.geojson has"
        r" EPSG:32633: state it in data\.toml",
    ):
        open_dataset(plain)
    state(plain, f'[[rasters]]\nimage = "a.tif"\ncrs = "EPSG:32633"\n{LABELS}\n')
    np.testing.assert_array_equal(assemble(open_dataset(plain))[1], expected())
    state(plain, f'[[rasters]]\nimage = "a.tif"\ncrs = "EPSG:99999999"\n{LABELS}\n')
    with pytest.raises(InputError, match=r"'EPSG:99999999' is not known"):
        open_dataset(plain)


def test_a_polygon_around_the_earth_covers_the_raster(plain: Path) -> None:
    """Most of its corners have no place in the raster's reference system."""
    world = shapely.box(-180, -90, 180, 90)
    write_geojson(plain / "labels.geojson", [(world, {"kind": "land"})], crs="EPSG:4326")
    assert (assemble(open_dataset(plain))[1] == 1).all()


def test_a_local_reference_system_is_refused_for_labels_on_the_earth(plain: Path) -> None:
    write_raster(plain / "a.tif", noise(), crs='LOCAL_CS["site",UNIT["metre",1]]')
    with pytest.raises(
        InputError, match=r"none of its 4 polygons lies in a\.tif.* EPSG:32633.*site"
    ):
        open_dataset(plain)


def test_a_stated_reference_system_may_not_contradict_the_file(plain: Path) -> None:
    state(plain, f'[[rasters]]\nimage = "a.tif"\ncrs = "EPSG:25832"\n{LABELS}\n')
    with pytest.raises(InputError, match=r"has the reference system EPSG:32633, but EPSG:25832 is"):
        open_dataset(plain)


def test_a_raster_without_position_is_refused_for_polygons(plain: Path) -> None:
    write_raster(plain / "a.tif", noise(), crs=None, origin=(0, 0))
    with pytest.raises(InputError, match=r"a\.tif: its pixels have no position"):
        open_dataset(plain)


def test_polygons_that_all_lie_outside_are_refused_and_some_are_noted(plain: Path) -> None:
    away = [(square(9000, 9000), {"kind": "barn"})]
    write_geojson(plain / "labels.geojson", FEATURES + away)
    data = open_dataset(plain)
    assert "labels.geojson: 1 of 5 polygons lie outside the rasters" in data.notes
    np.testing.assert_array_equal(assemble(data)[1], expected())
    write_geojson(plain / "labels.geojson", away)
    with pytest.raises(
        InputError,
        match=r"labels\.geojson: none of its 1 polygons lies in a\.tif: "
        r"they cover x 404500 .* in EPSG:32633, and a\.tif x 400000 to 400200",
    ):
        open_dataset(plain)


@pytest.mark.parametrize(
    ("features", "toml", "message"),
    [
        (FEATURES, TOML.replace("kind", "type"), r"no attribute 'type': its attributes are kind"),
        (
            FEATURES,
            TOML.replace(', attribute = "kind"', ""),
            r"\(attributes: kind\): write \{ path",
        ),
        (
            [*FEATURES, (square(0, 0), {"kind": None}), (square(9, 9), {"kind": " "})],
            TOML,
            r"no value in the attribute 'kind' \(2 of 6, feature 4, 5\)",
        ),
        ([*FEATURES, (shapely.Point(4e5, 57e5), {"kind": "x"})], TOML, r"no polygons \(1, such as"),
        ([], TOML, r"labels\.geojson: holds no polygons"),
        (FEATURES, TOML.replace("a.tif", "b.tif"), r"b\.tif: does not exist"),
        (FEATURES, TOML.replace("labels.geo", "lost.geo"), r"lost\.geojson: does not exist"),
        (FEATURES, TOML.replace('"a.tif"', '"{id}_x.tif"'), r"no file matches"),
        (FEATURES, TOML + TOML, r"a\.tif: is named twice"),
        (FEATURES, TOML + "windows = 3\n", r"unknown key 'rasters.0.windows'"),
        (FEATURES, "images = 'x'\n" + TOML, r"images: cannot be combined with \[\[rasters\]\]"),
        (FEATURES, "[windows]\nsize = 64\n", r"windows: has no effect without"),
        (FEATURES, TOML + "[windows]\nsize = 1\n", r"windows.size: is 1: .* greater than or equal"),
        (
            FEATURES,
            TOML.replace('"kind"', '"kind", class = "x"'),
            r"attribute and class are stated",
        ),
        (FEATURES, TOML.replace("attribute", "attr"), r"unknown key 'rasters.0.labels.attr'"),
        (FEATURES, TOML.replace(LABELS, "labels = 3"), r"rasters.0.labels: is 3: write a file, or"),
        (FEATURES, TOML.replace("[[rasters]]", "[rasters]"), r"line \[\[rasters\]\], in two"),
        (FEATURES, TOML.replace("labels =", "label ="), r"unknown key 'rasters.0.label'"),
        (FEATURES, TOML + "[values]\nhouse = 'h'\n", r"names no class for background, barn"),
        (FEATURES, TOML + "[[class]]\nname = 'house'\n", r"class barn, which the class table does"),
    ],
)
def test_faults_of_polygons_give_one_line(
    plain: Path, features: Any, toml: str, message: str
) -> None:
    write_geojson(plain / "labels.geojson", features)
    state(plain, toml)
    with pytest.raises(InputError, match=message) as error:
        open_dataset(plain)
    assert len(error.value.problems) <= 2
    assert all("\n" not in problem for problem in error.value.problems)


def test_multipolygons_holes_crossing_and_empty_geometries(plain: Path) -> None:
    ring = square(100, 100, 80).difference(square(120, 120, 40))
    two = shapely.MultiPolygon([square(0, 200, 20), square(0, 260, 20)])
    x, y = ORIGIN
    bow_tie = shapely.Polygon([(x, y), (x + 20, y - 20), (x + 20, y), (x, y - 20)])
    features = [
        (ring, {"kind": 1}),
        (two, {"kind": 2}),
        (bow_tie, {"kind": 10}),
        (None, {"kind": 2}),
    ]
    write_geojson(plain / "labels.geojson", features)
    data = open_dataset(plain)
    assert data.classes.names == ("background", "1", "2", "10")  # in the order of the numbers
    mask = assemble(data)[1]
    want = np.zeros((HEIGHT, WIDTH), np.uint8)
    want[100:180, 100:180] = 1
    want[120:160, 120:160] = 0
    want[0:20, 200:220] = want[0:20, 260:280] = 2
    np.testing.assert_array_equal(mask[:, 60:], want[:, 60:])
    assert (mask[20, :19] == 3).all()
    assert (mask[10, :8] == 3).all()
    assert (mask[[5, 35], 20] == 0).all()  # above and below the crossing


def test_pixels_without_data_are_ignored_and_do_not_count(plain: Path) -> None:
    pixels = noise(dtype=np.uint16)
    pixels[:, 350:] = 60_000
    pixels[0, 0] = (60_000, 5, 5)  # nodata in one band only
    write_raster(plain / "a.tif", pixels, nodata=60_000)
    data = open_dataset(plain)
    image, mask = assemble(data)
    want = expected()
    want[:, 350:] = 255
    np.testing.assert_array_equal(mask, want)
    assert data.pixels.dtype == "uint16"
    assert data.pixels.value_range == (0, 32767)  # not up to the nodata value
    assert (image[:, 350:] == 0).all()  # as in prediction with --large
    counted = np.bincount(want[want != 255].reshape(-1))
    np.testing.assert_array_equal(sum(data.pixel_counts.values()), counted)


@pytest.mark.parametrize("kind", ["mask", "alpha", "nan"])
def test_masks_alpha_and_nan_mark_pixels_without_data(plain: Path, kind: str) -> None:
    valid = np.ones((HEIGHT, WIDTH), bool)
    valid[:70, :60] = False
    pixels: NDArray[Any] = noise()
    if kind == "mask":
        write_raster(plain / "a.tif", pixels, mask=valid)
    elif kind == "alpha":
        bands = np.dstack([pixels, 255 * valid.astype(np.uint8)])
        write_raster(plain / "a.tif", bands, photometric="RGB", alpha="YES")
    else:
        pixels = pixels.astype(np.float32)
        write_raster(plain / "a.tif", np.where(valid[..., None], pixels, np.nan), nodata=np.nan)
    data = open_dataset(plain)
    image, mask = assemble(data)
    np.testing.assert_array_equal(mask, np.where(valid, expected(), 255))
    assert data.pixels.channels == 3
    np.testing.assert_array_equal(image[valid], pixels[valid])


def test_a_fourth_band_that_is_labeled_alpha_but_holds_data_is_used(plain: Path) -> None:
    bands = np.dstack([noise(), noise()[..., 0]])
    bands[:50, :50, 3] = 0  # water in the near infrared, for example
    write_raster(plain / "a.tif", bands, photometric="RGB", alpha="YES")
    data = open_dataset(plain)
    assert data.pixels.channels == 4
    image, mask = assemble(data)
    np.testing.assert_array_equal(image, bands)
    np.testing.assert_array_equal(mask, expected())


def test_windows_without_data_or_outside_the_area_are_left_out(plain: Path) -> None:
    pixels = noise()
    pixels[:, 200:] = 0
    write_raster(plain / "a.tif", pixels, nodata=0)
    state(plain, TOML + "[windows]\nsize = 100\n")
    data = open_dataset(plain)
    assert any("6 windows without data or labels are left out" in note for note in data.notes)
    assert (assemble(data)[1][:, 200:] == 99).all()
    write_geojson(plain / "area.geojson", [(square(100, 0, 150), {})])
    state(plain, TOML + 'area = "area.geojson"\n[windows]\nsize = 100\n')
    mask = assemble(open_dataset(plain))[1]
    assert (mask[100:250, :150] == 0).all()
    assert (mask[:100] == 99).all()
    assert (mask[250:, :150] == 255).all()


def test_a_raster_without_any_data_is_refused(plain: Path) -> None:
    write_raster(plain / "a.tif", np.zeros_like(noise()), nodata=0)
    with pytest.raises(InputError, match="no window of the rasters has both data and labels"):
        open_dataset(plain)


RASTER_TOML = '[[rasters]]\nimage = "a.tif"\nlabels = "labels.tif"\n'


@pytest.mark.filterwarnings("ignore:Use `@` matmul")  # in rasterio
@pytest.mark.parametrize("kind", ["same grid", "no position", "larger", "coarser", "projected"])
def test_label_rasters_are_aligned_to_the_image(plain: Path, kind: str) -> None:
    labels = expected()
    tolerated = 0
    if kind == "no position":
        write_raster(plain / "labels.tif", labels, crs=None, origin=(0, 0))
    elif kind == "larger":
        labels = np.pad(labels, ((8, 5), (6, 30)), constant_values=1)
        write_raster(plain / "labels.tif", labels, origin=(ORIGIN[0] - 3, ORIGIN[1] + 4))
    elif kind == "coarser":
        write_raster(plain / "labels.tif", labels[::2, ::2], pixel=2 * PIXEL)
    elif kind == "projected":
        transform, width, height = rasterio.warp.calculate_default_transform(
            UTM33,
            "EPSG:25832",
            WIDTH,
            HEIGHT,
            *square(HEIGHT, 0, 0).bounds[:2],
            *square(0, WIDTH, 0).bounds[2:],
            resolution=PIXEL / 4,
        )
        moved = np.full((height, width), 77, np.uint8)
        with warnings_silenced:
            rasterio.warp.reproject(
                labels,
                moved,
                src_crs=UTM33,
                dst_crs="EPSG:25832",
                dst_transform=transform,
                src_transform=Affine(PIXEL, 0, ORIGIN[0], 0, -PIXEL, ORIGIN[1]),
                dst_nodata=77,
            )
        origin = (transform.c, transform.f)
        write_raster(
            plain / "labels.tif", moved, crs="EPSG:25832", origin=origin, pixel=PIXEL / 4, nodata=77
        )
        tolerated = 900  # within an eighth of a pixel from a border
    else:
        write_raster(plain / "labels.tif", labels)
    state(plain, RASTER_TOML)
    data = open_dataset(plain)
    assert data.classes.names == ("class_0", "class_1", "class_2")
    assert (assemble(data)[1] != expected()).sum() <= tolerated


def test_pixels_without_label_are_ignored_whatever_the_classes_are(plain: Path) -> None:
    labels = expected()[:200]
    labels[:30] = 7
    write_raster(plain / "labels.tif", labels, nodata=7)
    want = expected()
    want[:30] = 255
    want[200:] = 255
    for table in ("", '[values]\n0 = "rest"\n"1.." = "building"\n'):
        state(plain, f"{RASTER_TOML}[windows]\nsize = 300\n{table}")
        data = open_dataset(plain)
        merged = np.where(want == 2, 1, want) if "rest" in table else want
        np.testing.assert_array_equal(assemble(data)[1], merged)
        assert data.classes.file_ignore == 255


def test_binary_labels_of_0_and_255_beside_nodata_keep_their_meaning(plain: Path) -> None:
    labels = np.where(expected() > 0, 255, 0).astype(np.uint8)
    write_raster(plain / "labels.tif", labels[:250])
    state(plain, RASTER_TOML)
    data = open_dataset(plain)
    assert data.classes.names == ("background", "foreground")
    want = (expected() > 0).astype(np.uint8)
    want[250:] = 255
    np.testing.assert_array_equal(assemble(data)[1], want)


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (noise(), {}, r"has 3 bands: labels are one band"),
        (
            expected()[:99],
            {"crs": None, "origin": (0, 0)},
            r"\(400x99\) and the image a.tif \(400x300",
        ),
        (expected()[:99], {"crs": None}, r"labels.tif: has no reference system, but a.tif has"),
        (expected() * np.float32(0.5), {}, r"holds fractions"),
        (expected().astype(np.int16) - 1, {}, r"holds the value -1: labels are 0 to 65534"),
        (expected(), {"origin": (0, 9)}, r"no window of the rasters has both data and labels"),
    ],
)
def test_faults_of_label_rasters_give_one_line(
    plain: Path, labels: NDArray[Any], options: dict[str, Any], message: str
) -> None:
    write_raster(plain / "labels.tif", labels, **options)
    state(plain, RASTER_TOML)
    with pytest.raises(InputError, match=message):
        open_dataset(plain)


def test_stated_classes_give_the_polygons_their_numbers(plain: Path) -> None:
    table = "".join(
        f'[[class]]\nname = "{name}"\nvalue = {value}\n'
        for name, value in (("house", 5), ("background", 3), ("barn", 9))
    )
    state(plain, TOML + table)
    data = open_dataset(plain)
    assert data.classes.values == (5, 3, 9)
    want = np.array([1, 2, 0])[expected()]
    np.testing.assert_array_equal(assemble(data)[1], want)
    state(plain, TOML + '[values]\nbackground = "ignore"\nhouse = "house"\nbarn = "house"\n')
    data = open_dataset(plain)
    assert data.classes.names == ("house",)
    np.testing.assert_array_equal(assemble(data)[1], np.where(expected() > 0, 0, 255))
    state(plain, TOML + '[[class]]\nname = "barn"\n[[class]]\nname = "house"\n')
    data = open_dataset(plain)
    assert "pixels outside all polygons are ignored" in " ".join(data.notes)
    np.testing.assert_array_equal(assemble(data)[1], np.array([255, 0, 1])[expected()])


def places(data: SegmentationData, split: str) -> Any:
    """The ground of the windows of a split, on the grid of the finest raster."""
    parts = [s.part for s in data.splits[split]]
    return shapely.union_all(
        [shapely.Polygon(p.place) for p in parts if isinstance(p, RasterWindow)]
    )


def test_blocks_are_drawn_whole_and_for_one_split(plain: Path) -> None:
    write_raster(plain / "a.tif", noise(320, 512))
    state(plain, TOML + "[windows]\nsize = 32\nblock = 2\n")
    data = open_dataset(plain)
    blocks = {split: {s.group for s in samples} for split, samples in data.splits.items()}
    assert not blocks["train"] & blocks["val"]
    assert len(blocks["train"] | blocks["val"]) == 40  # 5 x 8 blocks of 2 x 2 windows
    assert 0.15 < places(data, "val").area / (320 * 512) < 0.25
    assert open_dataset(plain, seed=1).splits["val"] != data.splits["val"]
    assert [s.name for s in open_dataset(plain).splits["val"]] == [
        s.name for s in data.splits["val"]
    ]
    state(plain, TOML + "[windows]\nsize = 32\nblock = 2\ngap = 20\n")
    apart = open_dataset(plain)
    assert places(apart, "train").distance(places(apart, "val")) >= 20
    assert any("or are closer than 20 pixels" in note for note in apart.notes)


def test_rasters_of_the_same_ground_do_not_leak_between_splits(plain: Path) -> None:
    """A second date with other pixels in another reference system, and a neighboring sheet."""
    corner = rasterio.warp.transform(UTM33, "EPSG:25832", [ORIGIN[0] + 10], [ORIGIN[1] - 10])
    write_raster(
        plain / "b.tif",
        noise(100, 100),
        crs="EPSG:25832",
        origin=(corner[0][0], corner[1][0]),
        pixel=1.3,
    )
    write_raster(plain / "c.tif", noise(), origin=(ORIGIN[0] + WIDTH * PIXEL, ORIGIN[1]))
    state(
        plain, "".join(TOML.replace("a.tif", f"{n}.tif") for n in "abc") + "[windows]\nsize = 32\n"
    )
    data = open_dataset(plain)
    assert {s.name[0] for s in data.splits["val"]} >= {"a", "c"}
    assert places(data, "train").intersection(places(data, "val")).area < 200  # borders
    assert any("they overlap windows of other splits" in note for note in data.notes)
    assert any("a.tif have 0.5 m and those of b.tif 1.3 m" in note for note in data.notes)


def test_stated_splits_of_rasters_are_kept_apart_too(plain: Path) -> None:
    write_raster(plain / "b.tif", noise(150, 400))
    state(
        plain,
        TOML
        + 'split = "train"\n'
        + TOML.replace("a.tif", "b.tif")
        + 'split = "val"\n[windows]\nsize = 50\n',
    )
    data = open_dataset(plain)
    assert {s.name[0] for s in data.splits["val"]} == {"b"}
    assert {s.part.window.top for s in data.splits["train"]} == {150, 200, 250}
    state(plain, TOML + 'split = "train"\n' + TOML.replace("a.tif", "./a.tif") + 'split = "val"\n')
    with pytest.raises(InputError, match="is named twice"):
        open_dataset(plain)


def test_a_pattern_names_rasters_and_their_labels(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_raster(tmp_path / "images" / f"{name}.tif", noise())
        write_raster(tmp_path / "labels" / f"{name}_mask.tif", expected())
    state(
        tmp_path,
        '[[rasters]]\nimage = "images/{id}.tif"\nlabels = "labels/{id}_mask.tif"\n'
        'split = "train"\n',
    )
    data = open_dataset(tmp_path, draw_val=False)
    np.testing.assert_array_equal(assemble(data, "one")[1], expected())
    np.testing.assert_array_equal(assemble(data, "two")[1], expected())


def test_a_raster_in_rows_or_huge_tiles_and_a_damaged_one_give_one_line(
    plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as small:
        small.setattr(raster_file, "BLOCK_BYTES", 10_000)
        with pytest.raises(InputError, match=r"a\.tif: .* blocks of 64x64 pixels.*gdal_translate"):
            open_dataset(plain)
    write_raster(plain / "a.tif", noise(width=1100), tiled=False)
    assert any("a.tif is stored in rows of 1100 pixels" in n for n in open_dataset(plain).notes)
    write_raster(plain / "a.tif", noise())
    content = (plain / "a.tif").read_bytes()
    (plain / "a.tif").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"a\.tif: (cannot be read|is not a GeoTIFF)"):
        open_dataset(plain)
    (plain / "a.tif").write_text("no raster")
    with pytest.raises(InputError, match=r"a\.tif: is not a GeoTIFF, or is damaged"):
        open_dataset(plain)


def write_scene(root: Path) -> dict[str, Any]:
    """Write a raster whose polygons can be seen, and return the visible part of each class."""
    rng = np.random.default_rng(3)
    pixels = rng.integers(60, 100, (400, 600, 3), dtype=np.uint8)
    features, truth = [], {"house": shapely.Polygon(), "barn": shapely.Polygon()}
    for number in range(40):
        row, column, side = (int(n) for n in rng.integers((0, 0, 30), (330, 530, 70)))
        kind = ("house", "barn")[number % 2]
        area = np.s_[row : row + side, column : column + side]
        pixels[area] = rng.integers(0, 40, (side, side, 3)) + np.array(
            (200, 60, 60) if kind == "house" else (40, 200, 40)
        )
        shape = square(row, column, side)
        features.append((shape, {"kind": kind}))
        truth = {k: v | shape if k == kind else v - shape for k, v in truth.items()}
    pixels[:, :20] = 0
    write_raster(root / "a.tif", pixels, nodata=0)
    write_geojson(root / "labels.geojson", features)
    state(root, TOML)
    return truth


SETTINGS = {
    "model.options.backbone": "tiny",
    "model.options.aspp": False,
    "model.options.decoder": False,
    "model.options.stride_2_skip": False,
    "model.weights": "none",
    "device": "cpu",
    "kernels": "plain",
    "memory_format": "contiguous",
    "augmentation.crop": [64, 64],
    "batch_size": 4,
    "optimizer.learning_rate": 3e-3,
    "epochs": 12,
}


@pytest.mark.parametrize("number", [1, 2, 3])
def test_folds_hold_whole_blocks(plain: Path, number: int) -> None:
    state(plain, TOML + "[windows]\nsize = 50\nblock = 2\n")
    data = open_dataset(plain, fold=f"{number}/3")
    blocks = {split: {s.group for s in samples} for split, samples in data.splits.items()}
    assert not blocks["train"] & blocks["val"]
    assert len(blocks["train"] | blocks["val"]) == 12
    np.testing.assert_array_equal(assemble(data)[1], expected())


def test_the_interval_of_a_cross_validation_is_over_blocks(
    plain: Path, tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pixelwise.study import cross_validate as module
    from pixelwise.training import load_recipe
    from pixelwise.weights.bundle import Bundle

    state(plain, TOML + "[windows]\nsize = 100\nblock = 2\n")
    classes = open_dataset(plain).classes
    assert len(classes) == len(Bundle.load(tiny_bundle).classes)
    bundles = [tmp_path.parent / f"{number}.safetensors" for number in (1, 2)]
    for number, path in enumerate(bundles, 1):
        recipe = {"data": {"fold": f"{number}/2"}}
        replace(Bundle.load(tiny_bundle), classes=classes, recipe=recipe).save(path)
    monkeypatch.setattr(module, "train_folds", lambda *_, **__: bundles)
    result = module.cross_validate(plain, tmp_path.parent / "o", load_recipe(None, {}), folds=2)
    assert sum(fold.images for fold in result.folds) == 12
    assert [fold.groups for fold in result.folds] == [2, 2]
    assert result.to_json()["intervals"]["groups"] == len(result.group_counts) == 4


def test_what_needs_image_files_refuses_windows(plain: Path, tiny_bundle: Path) -> None:
    from pixelwise.inference import Predictor
    from pixelwise.recipes.load_recipe import load_recipe
    from pixelwise.study.label_errors.find import find_label_errors
    from pixelwise.study.label_errors.suggest import check_files
    from pixelwise.study.select import select

    predictor = Predictor.load(tiny_bundle, runtime="torch")
    with pytest.raises(InputError, match=r"windows of rasters.*omit --labelled"):
        select(plain / "a.tif", predictor, plain / "out", count=1, labeled=plain)
    with pytest.raises(InputError, match=r"windows of rasters.*omit --suggest"):
        check_files(open_dataset(plain))
    out, new = plain.parent / "study", plain.parent / "new"
    with pytest.raises(InputError, match=r"windows of rasters.*omit --suggest"):
        find_label_errors(plain, out, load_recipe(None, {}), suggest=new)
    assert not out.exists()  # nothing was trained


def test_windows_cannot_be_converted_to_files(plain: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"are windows of rasters.*train on the rasters themselves"
    ):
        convert_data(plain, tmp_path.parent / "plain_copy")


@pytest.mark.slow
def test_predicted_polygons_lie_where_the_labels_lie(tmp_path: Path) -> None:
    """Also: two loading processes give the same network, and a run resumes to the same bits."""
    pytest.importorskip("torch")
    from pixelwise.inference.batch.large_images import predict_large_images
    from pixelwise.training import Callback

    class Stop(Callback):
        def on_epoch_end(self, row: Any) -> None:
            raise RuntimeError("stopped")

    truth = write_scene(tmp_path)
    run, again = tmp_path / "run", tmp_path / "again"
    pixelwise.train(tmp_path, out=run, settings=SETTINGS, quiet=True)
    settings = SETTINGS | {"data.workers": 2}
    with pytest.raises(RuntimeError, match="stopped"):
        pixelwise.train(tmp_path, out=again, settings=settings, quiet=True, callback=Stop())
    pixelwise.resume(again, quiet=True)
    weights = [(folder / "last.safetensors").read_bytes() for folder in (run, again)]
    assert weights[0][-10_000:] == weights[1][-10_000:]

    options = pixelwise.AnswerOptions(to="geojson", geopackage=True)
    predictor = pixelwise.load(run / "best.safetensors")
    predict_large_images(predictor, tmp_path / "a.tif", tmp_path / "o", answers=options)
    info, _, shapes, (names, *_) = pyogrio.raw.read(tmp_path / "o/a.gpkg")
    assert info["crs"] == UTM33
    polygons = shapely.make_valid(shapely.from_wkb(shapes))
    for kind, wanted in truth.items():
        found = shapely.union_all(polygons[names == kind])
        assert found.intersection(wanted).area / found.union(wanted).area > 0.7, kind
    with rasterio.open(tmp_path / "o/a.tif") as mask:
        assert mask.crs == UTM33
        assert mask.bounds.left, mask.bounds.top == ORIGIN
        assert (mask.read(1)[:, :20] == mask.nodata).all()
