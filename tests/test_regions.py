"""Components, areas and polygons, compared with computations by other means."""

from __future__ import annotations

import multiprocessing
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelwise.data.classes import IGNORE, Classes
from pixelwise.data.image_decoding import warnings_hidden
from pixelwise.errors import InputError
from pixelwise.regions.areas import measure_areas
from pixelwise.regions.components import clean_labels, find_components
from pixelwise.regions.georeference import Georeference, read_georeference
from pixelwise.regions.polygons import find_polygons, write_polygons

CLASSES = Classes.make(["background", "cell", "crack"])


def flood(labels: np.ndarray) -> list[tuple[int, int]]:
    """(label, size) of each component, by flooding from each pixel."""
    open_pixels = {(int(r), int(c)) for r, c in np.ndindex(labels.shape)}
    found = []
    while open_pixels:
        start = open_pixels.pop()
        stack, size = [start], 1
        while stack:
            row, column = stack.pop()
            for near in (
                (row - 1, column),
                (row + 1, column),
                (row, column - 1),
                (row, column + 1),
            ):
                if near in open_pixels and labels[near] == labels[start]:
                    open_pixels.remove(near)
                    stack.append(near)
                    size += 1
        found.append((int(labels[start]), size))
    return sorted(found)


maps = st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(0, 10_000)).map(
    lambda t: (
        np.random.default_rng(t[2])
        .choice([0, 1, 2, IGNORE], t[:2], p=[0.5, 0.3, 0.1, 0.1])
        .astype(np.uint8)
    )
)


@settings(max_examples=150, deadline=None)
@given(maps)
def test_components_are_those_of_flooding(labels: np.ndarray) -> None:
    components = find_components(labels)
    pairs = zip(components.labels.tolist(), components.sizes.tolist(), strict=True)
    assert sorted(pairs) == flood(labels)
    np.testing.assert_array_equal(components.labels[components.ids], labels)


@settings(max_examples=150, deadline=None)
@given(maps, st.integers(1, 9))
def test_no_small_component_is_left_beside_another_class(labels: np.ndarray, area: int) -> None:
    cleaned = clean_labels(labels, min_area=area)
    np.testing.assert_array_equal(cleaned == IGNORE, labels == IGNORE)
    components = find_components(cleaned)
    for number in np.flatnonzero((components.sizes < area) & (components.labels != IGNORE)):
        inside = components.ids == number
        grown = inside.copy()
        grown[1:] |= inside[:-1]
        grown[:-1] |= inside[1:]
        grown[:, 1:] |= inside[:, :-1]
        grown[:, :-1] |= inside[:, 1:]
        assert set(cleaned[grown & ~inside].tolist()) <= {IGNORE}
    large = np.isin(
        find_components(labels).ids, np.flatnonzero(find_components(labels).sizes >= area)
    )
    np.testing.assert_array_equal(cleaned[large], labels[large])


def test_a_small_component_takes_the_class_with_the_longest_border() -> None:
    labels = np.zeros((9, 9), np.uint8)
    labels[:, 5:] = 1
    labels[4, 4] = 2  # three edges to class 0, one to class 1
    labels[1:3, 5] = 2  # two edges to class 0, four to class 1
    cleaned = clean_labels(labels, min_area=5)
    assert cleaned[4, 4] == 0
    assert (cleaned[1:3, 5] == 1).all()


def test_only_enclosed_background_is_a_hole() -> None:
    labels = np.zeros((10, 20), np.uint8)
    labels[1:9, 1:9] = 1
    labels[3:5, 3:5] = 0  # a hole
    labels[6, 6] = 2  # an object inside an object
    labels[2:8, 12:20] = 1
    labels[4, 18:20] = 0  # open to the border of the image
    labels[6, 14] = IGNORE
    filled = clean_labels(labels, holes_of=0)
    expected = labels.copy()
    expected[3:5, 3:5] = 1
    np.testing.assert_array_equal(filled, expected)


def test_a_negative_area_is_refused() -> None:
    with pytest.raises(InputError, match="min_area -1"):
        clean_labels(np.zeros((2, 2), np.uint8), min_area=-1)


def test_areas_are_counted_per_class() -> None:
    labels = np.array([[1, 1, 0, IGNORE], [0, 0, 1, 1], [1, 0, 0, 1]], np.uint8)
    confidence = np.linspace(0.5, 1, 12, dtype=np.float32).reshape(3, 4)
    background, cell, crack = measure_areas(labels, CLASSES, confidence=confidence, pixel_area=0.25)
    assert (background.pixels, background.components, background.largest) == (5, 2, 4)
    assert (cell.pixels, cell.components, cell.largest) == (6, 3, 3)
    assert cell.share == 6 / 11
    assert cell.square_meters == 1.5
    assert cell.confidence == pytest.approx(confidence[labels == 1].mean())
    assert (crack.pixels, crack.components, crack.largest, crack.confidence) == (0, 0, 0, None)


def rasterize(polygons: list, shape: tuple[int, int]) -> np.ndarray:
    features = pytest.importorskip("rasterio.features", reason="rasterio is not installed")
    shapes = [(p.outline, CLASSES.names.index(p.name)) for p in polygons]
    return features.rasterize(shapes, shape, fill=0, dtype=np.uint8) if shapes else np.zeros(shape)


@settings(max_examples=60, deadline=None)
@given(maps)
def test_exact_polygons_reproduce_the_mask(labels: np.ndarray) -> None:
    polygons = find_polygons(labels, CLASSES, tolerance=0)
    np.testing.assert_array_equal(
        rasterize(polygons, labels.shape), np.where(labels == IGNORE, 0, labels)
    )
    assert sorted((CLASSES.names.index(p.name), p.pixels) for p in polygons) == [
        pair for pair in flood(labels) if pair[0] in (1, 2)
    ]


def test_simplified_polygons_stay_within_the_tolerance() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    rows, columns = np.ogrid[:80, :90]
    labels = np.zeros((80, 90), np.uint8)
    labels[(rows - 40) ** 2 + (columns - 45) ** 2 < 900] = 1
    labels[(rows - 42) ** 2 + (columns - 40) ** 2 < 90] = 0  # a hole
    exact = find_polygons(labels, CLASSES, tolerance=0)
    simple = find_polygons(labels, CLASSES, tolerance=2)
    assert len(simple[0].outline.interiors) == 1
    assert len(simple[0].outline.exterior.coords) < len(exact[0].outline.exterior.coords) / 3
    wrong = rasterize(simple, labels.shape) != labels
    at_border = ndimage.distance_transform_edt(labels) + ndimage.distance_transform_edt(labels == 0)
    assert wrong.any()
    assert at_border[wrong].max() <= 2 + 0.5


def test_polygons_of_a_geotiff_lie_where_the_image_lies(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed")
    raw = pytest.importorskip("pyogrio.raw", reason="pyogrio is not installed")
    shapely = pytest.importorskip("shapely", reason="shapely is not installed")
    path = tmp_path / "field.tif"
    transform = rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 5_800_000)
    profile = {"width": 20, "height": 10, "count": 3, "dtype": "uint8", "driver": "GTiff"}
    with rasterio.open(path, "w", crs="EPSG:32633", transform=transform, **profile) as file:
        file.write(np.zeros((3, 10, 20), np.uint8))
    georeference = read_georeference(path)
    assert georeference is not None
    assert georeference.pixel_area == 0.25
    labels = np.zeros((10, 20), np.uint8)
    labels[2:4, 5:9] = 1
    polygons = find_polygons(labels, CLASSES, georeference=georeference, tolerance=0)
    for name in ("a.geojson", "a.gpkg"):
        write_polygons(tmp_path / name, polygons, georeference)
        meta, _, geometry, fields = raw.read(tmp_path / name)
        assert meta["crs"] == "EPSG:32633"
        assert shapely.from_wkb(geometry[0]).bounds == (500_002.5, 5_799_998, 500_004.5, 5_799_999)
        assert [list(column) for column in fields[:2]] == [["cell"], [8]]


@pytest.mark.parametrize(
    ("crs", "transform", "area"),
    [
        # One arc second at 60 degrees north, from the radii of curvature of the ellipsoid.
        ("EPSG:4326", (1 / 3600, 0, 10, 0, -1 / 3600, 60), 30.95 * 15.50),
        # Web Mercator stretches lengths by 1 / cos(latitude).
        ("EPSG:3857", (10, 0, 1_113_195, 0, -10, 8_399_738), 25.0),
    ],
)
def test_areas_are_those_on_the_ground(
    tmp_path: Path, crs: str, transform: tuple[float, ...], area: float
) -> None:
    rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed")
    path = tmp_path / "image.tif"
    profile = {"width": 20, "height": 10, "count": 1, "dtype": "uint8", "driver": "GTiff"}
    with rasterio.open(
        path, "w", crs=crs, transform=rasterio.Affine(*transform), **profile
    ) as file:
        file.write(np.zeros((1, 10, 20), np.uint8))
    georeference = read_georeference(path)
    assert georeference is not None
    assert georeference.pixel_area == pytest.approx(area, rel=0.01)


def test_an_image_without_georeference_has_none(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert read_georeference(tmp_path / "a.png") is None


def test_pixel_polygons_are_written_without_a_reference_system(tmp_path: Path) -> None:
    import json

    labels = np.zeros((10, 20), np.uint8)
    labels[2:4, 5:9] = 1
    write_polygons(tmp_path / "a.geojson", find_polygons(labels, CLASSES, tolerance=0))
    content = json.loads((tmp_path / "a.geojson").read_text())
    assert "crs" not in content
    (feature,) = content["features"]
    assert feature["properties"] == {"class": "cell", "pixels": 8, "confidence": None}
    assert sorted(map(tuple, feature["geometry"]["coordinates"][0]))[0] == (5, 2)
    write_polygons(tmp_path / "a.gpkg", [])
    with pytest.raises(InputError, match=r"\.geojson or \.gpkg"):
        write_polygons(tmp_path / "a.shp", [])


def test_unknown_classes_and_tolerances_are_refused() -> None:
    labels = np.zeros((2, 2), np.uint8)
    with pytest.raises(InputError, match="'dog'"):
        find_polygons(labels, CLASSES, names=["dog"])
    with pytest.raises(InputError, match="tolerance -1"):
        find_polygons(labels, CLASSES, tolerance=-1)


def test_the_reference_system_may_be_rotated() -> None:
    georeference = Georeference("EPSG:32633", (0.0, 2.0, 10.0, 3.0, 0.0, 20.0), 6.0)
    np.testing.assert_array_equal(georeference.to_ground(np.array([[1.0, 2.0]])), [[14.0, 23.0]])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_process_that_is_forked_while_polygons_are_traced_traces_its_own() -> None:
    labels = np.eye(8, dtype=np.uint8)
    with warnings_hidden():
        context = multiprocessing.get_context("fork")
        child = context.Process(target=find_polygons, args=(labels, CLASSES))
        child.start()
    child.join(20)
    child.kill()
    assert child.exitcode == 0


def test_threads_trace_polygons_without_a_warning() -> None:
    """rasterio itself hides a warning in a way that works for one thread at a time."""
    labels = (np.random.default_rng(0).random((12, 12)) > 0.5).astype(np.uint8)
    expected = len(find_polygons(labels, CLASSES, names=["cell"]))
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads change places within a change of the filters
    try:
        with ThreadPoolExecutor(8) as pool:
            found = pool.map(lambda _: find_polygons(labels, CLASSES, names=["cell"]), range(500))
            assert {len(each) for each in found} == {expected}
    finally:
        sys.setswitchinterval(interval)
