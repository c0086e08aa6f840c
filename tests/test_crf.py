"""The dense CRF against a reference lattice, a true Gaussian, and pydensecrf's results."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

import pixelwise
from fixture_types import Cli, MakeData
from pixelwise.crf import (
    DEFAULT_PARAMETERS,
    PARAMETER_SETS,
    CRFParameters,
    dense_crf,
    dense_crfs,
    find_parameters,
)
from pixelwise.data.dataset import open_dataset
from pixelwise.errors import InputError
from pixelwise.evaluation import ConfusionMatrix, search_crf
from pixelwise.weights.bundle import Bundle

pytest.importorskip("numba")
from pixelwise.crf.lattice import Lattice
from pixelwise.ops.threads import Threads

RECORDED = Path(__file__).parent / "recorded" / "pydensecrf.json"

# The stds are not round numbers: with those, the position lattice has exact ties at the image's
# border, which float32 and float64 break differently.
PARAMETERS = CRFParameters(bi_w=4, bi_xy=9.7, bi_rgb=21.3, pos_w=3, pos_xy=2.9)


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=0))
    return (powers / powers.sum(axis=0)).astype(np.float32)


def random_probabilities(classes: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return softmax(2 * np.random.default_rng(seed).standard_normal((classes, height, width)))


def halves(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an image with a dark and a light half, and the half of each pixel."""
    side = np.broadcast_to(np.arange(width) >= width // 2, (height, width))
    image = np.where(side[..., None], np.uint8(200), np.uint8(50)).repeat(3, axis=2)
    return image + noise(image.shape) // 32, side.astype(np.uint8)


# A reference implementation in float64, point by point, with dicts, derived from the geometry.


class ReferenceLattice:
    """Adams, Baek and Davis 2010, directly from section 3."""

    def __init__(self, features: np.ndarray) -> None:
        self.dimensions = d = len(features)
        # An orthonormal basis of the plane sum(x) = 0 in d+1 dimensions, as columns.
        basis = np.zeros((d + 1, d))
        for j in range(d):
            basis[: j + 1, j], basis[j + 1, j] = 1, -(j + 1)
        basis /= np.linalg.norm(basis, axis=0)
        # Summed in the same order for all coordinates, unlike in BLAS: ties must be exact.
        positions = (basis[:, :, None] * features.astype(np.float64)).sum(axis=1)
        positions *= math.sqrt(2 / 3) * (d + 1)
        self.simplices = [self._simplex(position) for position in positions.T]

    def _simplex(self, position: np.ndarray) -> list[tuple[tuple[int, ...], float]]:
        """Return the vertices around a position in the plane, with barycentric weights."""
        d = self.dimensions
        nearest = np.rint(position / (d + 1)) * (d + 1)
        order = np.argsort(nearest - position, kind="stable")  # largest remainder first
        excess = int(nearest.sum()) // (d + 1)
        if excess > 0:  # above the plane: step back along the smallest remainders
            nearest[order[d + 1 - excess :]] -= d + 1
        else:
            nearest[order[:-excess]] += d + 1
        remainder = position - nearest
        order = np.argsort(-remainder, kind="stable")
        falling = remainder[order] / (d + 1)
        vertices = []
        for k in range(d + 1):  # the vertex of remainder k
            vertex = nearest + k
            vertex[order[d + 1 - k :]] -= d + 1
            gap = 1 + falling[d] - falling[0] if k == 0 else falling[d - k] - falling[d - k + 1]
            vertices.append((tuple(int(x) for x in vertex), float(gap)))
        return vertices

    def filter(self, values: np.ndarray) -> np.ndarray:
        """Filter each column of (N, C)."""
        lattice: dict[tuple[int, ...], Any] = defaultdict(lambda: np.zeros(values.shape[1]))
        for simplex, value in zip(self.simplices, values, strict=True):
            for vertex, weight in simplex:
                lattice[vertex] = lattice[vertex] + weight * value
        d = self.dimensions
        zero = np.zeros(values.shape[1])
        for axis in range(d + 1):
            step = np.full(d + 1, -1)
            step[axis] = d
            lattice = {
                vertex: value
                + 0.5 * lattice.get(tuple(int(x) for x in np.add(vertex, step)), zero)
                + 0.5 * lattice.get(tuple(int(x) for x in np.subtract(vertex, step)), zero)
                for vertex, value in lattice.items()
            }
        sliced = [sum(weight * lattice[v] for v, weight in simplex) for simplex in self.simplices]
        return np.array(sliced) / (1 + 2.0**-d)


def features_of(image: np.ndarray, xy: float, rgb: float | None = None) -> np.ndarray:
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width].reshape(2, -1)
    rows = [x / xy, y / xy]
    if rgb is not None:
        rows += [channel / rgb for channel in image.reshape(-1, 3).T.astype(np.float64)]
    return np.array(rows)


def reference_crf(
    image: np.ndarray, probabilities: np.ndarray, parameters: CRFParameters
) -> np.ndarray:
    """Run mean field inference, the paper's algorithm 1, on ReferenceLattice."""
    classes = len(probabilities)
    logits = np.log(np.clip(probabilities.reshape(classes, -1).T.astype(np.float64), 1e-5, 1))
    kernels = []
    for weight, features in (
        (parameters.bi_w, features_of(image, parameters.bi_xy, parameters.bi_rgb)),
        (parameters.pos_w, features_of(image, parameters.pos_xy)),
    ):
        lattice = ReferenceLattice(features)
        norm = 1 / np.sqrt(lattice.filter(np.ones((len(logits), 1))) + 1e-20)
        kernels.append((weight, lattice, norm))
    q = np.exp(logits)
    q /= q.sum(axis=1, keepdims=True)
    for _ in range(parameters.iterations):
        total = logits.copy()
        for weight, lattice, norm in kernels:
            total += weight * norm * lattice.filter(norm * q)
        q = np.exp(total - total.max(axis=1, keepdims=True))
        q /= q.sum(axis=1, keepdims=True)
    return q.T.reshape(probabilities.shape)


@pytest.mark.parametrize("dimensions", [1, 2, 3, 5])
@pytest.mark.parametrize("columns", [1, 8, 11])
def test_the_lattice_equals_the_reference(dimensions: int, columns: int) -> None:
    rng = np.random.default_rng(dimensions)
    features = rng.normal(0, 2, (dimensions, 200)).astype(np.float32)
    values = rng.random((200, columns)).astype(np.float32)
    expected = ReferenceLattice(features).filter(values)
    filtered = Lattice(features, normalized=False).filter(values)
    assert np.allclose(filtered, expected, rtol=1e-4, atol=1e-5)
    norm = 1 / np.sqrt(ReferenceLattice(features).filter(np.ones((200, 1))))
    expected = norm * ReferenceLattice(features).filter(norm * values)
    assert np.allclose(Lattice(features).filter(values), expected, rtol=1e-4, atol=1e-5)


def test_the_number_of_strips_does_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    features = np.random.default_rng(0).normal(0, 3, (5, 500)).astype(np.float32)
    values = np.random.default_rng(1).random((500, 3)).astype(np.float32)
    one = Lattice(features)
    assert one.strips == 1
    monkeypatch.setattr("pixelwise.crf.lattice._MIN_STRIP", 50)
    many = Lattice(features)
    assert many.strips == 8
    assert many.size == one.size
    assert np.allclose(many.filter(values), one.filter(values), rtol=1e-5, atol=1e-6)


def test_any_number_of_threads_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixelwise.crf.lattice._MIN_STRIP", 100)
    monkeypatch.setattr("pixelwise.crf.meanfield._MIN_THREADED", 0)
    image, probabilities = noise((37, 41, 3)), random_probabilities(11, 37, 41)
    results, used = [], set()
    run = Threads.run

    def record(self: Threads, *arguments: Any) -> None:
        used.add(self.count)
        run(self, *arguments)

    monkeypatch.setattr(Threads, "run", record)
    for threads in (1, 2, 3, 64):
        monkeypatch.setattr("pixelwise.ops.threads.cores", lambda: threads)  # noqa: B023
        results.append(dense_crf(image, probabilities))
    assert used == {1, 2, 3, 64}
    assert all((result == results[0]).all() for result in results)


def test_concurrent_calls_do_not_affect_each_other() -> None:
    cases = [(noise((60, 50, 3), n), random_probabilities(4, 60, 50, n)) for n in range(6)]
    expected = [dense_crf(*case) for case in cases]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda case: dense_crf(*case), cases))
    for one, other in zip(found, expected, strict=True):
        assert (one == other).all()


def test_threads_process_every_item_exactly_once() -> None:
    for count in (1, 2, 5):
        for items in (0, 1, 2, 3, 17):
            seen: list[int] = []
            with Threads(count) as threads:
                threads.run(lambda begin, end, into: into.extend(range(begin, end)), items, seen)
            assert sorted(seen) == list(range(items))


@pytest.mark.parametrize("dimensions", [2, 5])
def test_the_lattice_is_close_to_a_true_gaussian(dimensions: int) -> None:
    """Compare weighted means by the lattice with those by exp(-|f - g|^2 / 2) over all pairs.

    The lattice's kernel is a tent spline with the Gaussian's variance (Adams et al. 2010, figure
    6): it differs by a few percent at each distance, and by more where points are sparse. The
    values are 0 or 1, so an error of 0.05 is 5 % of their range.
    """
    rng = np.random.default_rng(0)
    features = rng.random((dimensions, 2000)).astype(np.float32) * 4
    values = (rng.random((2000, 1)) + 0.4 * features[0][:, None] > 1.3).astype(np.float32)
    distances = ((features[:, :, None] - features[:, None]) ** 2).sum(axis=0)
    gauss = np.exp(-distances / 2)
    expected = gauss @ values / gauss.sum(axis=1, keepdims=True)
    lattice = Lattice(features, normalized=False)
    found = lattice.filter(values) / lattice.filter(np.ones_like(values))
    error = found - expected
    assert np.sqrt((error**2).mean()) < 0.03
    assert np.abs(error).max() < 0.12


@pytest.mark.parametrize("classes", [2, 11])
def test_mean_field_equals_the_reference(classes: int) -> None:
    image, _ = halves(13, 17)
    probabilities = random_probabilities(classes, 13, 17)
    for iterations in (0, 1, 4):
        parameters = dataclasses.replace(PARAMETERS, iterations=iterations)
        refined = dense_crf(image, probabilities, parameters)
        assert refined.dtype == np.float32
        assert np.abs(refined - reference_crf(image, probabilities, parameters)).max() < 1e-5


@pytest.mark.parametrize("case", json.loads(RECORDED.read_text()), ids=lambda case: case["name"])
def test_mean_field_equals_pydensecrfs_recorded_results(case: dict[str, Any]) -> None:
    """Written by `benchmarks/crf.py --record`.

    pydensecrf adds a lattice vertex if the number of pixels is not a multiple of 4, except if the
    first pixel is black, as in the last case.
    """
    image = np.array(case["image"], np.uint8)
    probabilities = np.array(case["probabilities"], np.float32)
    refined = dense_crf(image, probabilities, CRFParameters(**case["parameters"]))
    expected = np.array(case["refined"], np.float32)
    assert np.abs(expected - probabilities).max() > 0.3  # the CRF changes much
    assert np.abs(refined - expected).max() < 1e-4
    assert (refined.argmax(axis=0) == expected.argmax(axis=0)).all()


def test_uniform_probabilities_stay_uniform() -> None:
    refined = dense_crf(noise((20, 30, 3)), np.full((4, 20, 30), 0.25, np.float32))
    assert np.allclose(refined, 0.25, atol=1e-6)


def test_certain_probabilities_stay_certain() -> None:
    probabilities = np.zeros((3, 20, 30), np.float32)
    probabilities[1] = 1
    assert (dense_crf(noise((20, 30, 3)), probabilities)[1] > 0.999).all()


def test_a_wrong_pixel_is_corrected_and_the_edge_is_kept() -> None:
    image, side = halves(40, 60)
    likely = np.where(side, 0.2, 0.8).astype(np.float32)
    likely[20, 10], likely[20, 50] = 0.3, 0.7  # both wrong
    probabilities = np.stack([likely, 1 - likely])
    assert (probabilities.argmax(axis=0) != side).sum() == 2
    assert (dense_crf(image, probabilities, "camvid").argmax(axis=0) == side).all()


def test_a_blurred_edge_moves_to_the_images_edge() -> None:
    image, side = halves(40, 60)
    shifted = np.clip((np.arange(60) - 33) / 10 + 0.5, 0.02, 0.98)  # three pixels to the right
    probabilities = np.broadcast_to(np.stack([1 - shifted, shifted])[:, None], (2, 40, 60))
    before = (probabilities.argmax(axis=0) != side).mean()
    after = (dense_crf(image, probabilities, "camvid").argmax(axis=0) != side).mean()
    assert before == pytest.approx(3 / 60, abs=1 / 60)
    assert after == 0


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 20), st.integers(0, 9))
@example(1, 1, 1, 0)
@example(1, 1, 3, 0)
@example(1, 40, 9, 0)
@example(40, 1, 8, 0)
def test_every_image_size_yields_probabilities(
    height: int, width: int, classes: int, seed: int
) -> None:
    probabilities = random_probabilities(classes, height, width, seed)
    original = probabilities.copy()
    refined = dense_crf(noise((height, width, 3), seed), probabilities)
    assert refined.shape == (classes, height, width)
    assert np.isfinite(refined).all()
    assert (refined >= 0).all()
    assert np.allclose(refined.sum(axis=0), 1, atol=1e-5)
    assert (probabilities == original).all()  # the input is not modified


def test_memory_layout_and_float_type_do_not_matter() -> None:
    image, probabilities = noise((18, 25, 3)), random_probabilities(3, 18, 25)
    expected = dense_crf(image, probabilities)
    last = np.ascontiguousarray(probabilities.transpose(1, 2, 0)).transpose(2, 0, 1)
    assert (dense_crf(np.asfortranarray(image), last) == expected).all()
    assert np.allclose(dense_crf(image, probabilities.astype(np.float64)), expected, atol=1e-6)
    half = probabilities.astype(np.float16)
    assert (dense_crf(image, half) == dense_crf(image, half.astype(np.float32))).all()


def test_reusing_lattices_does_not_change_results() -> None:
    image, probabilities = noise((18, 25, 3)), random_probabilities(3, 18, 25)
    sets = [
        PARAMETERS,
        dataclasses.replace(PARAMETERS, bi_w=2),
        *PARAMETER_SETS.values(),
        PARAMETERS,
    ]
    for parameters, refined in zip(sets, dense_crfs(image, probabilities, sets), strict=True):
        assert (refined == dense_crf(image, probabilities, parameters)).all()


def with_value(index: tuple[int, int, int], value: float) -> np.ndarray:
    probabilities = random_probabilities(3, 4, 5)
    probabilities[index] = value
    return probabilities


IMAGE = noise((4, 5, 3))


@pytest.mark.parametrize(
    ("image", "probabilities", "message"),
    [
        (IMAGE, with_value((1, 2, 3), math.nan), "at row 2, column 3 sum to nan"),
        (IMAGE, with_value((1, 2, 3), math.inf), "at row 2, column 3 sum to inf"),
        (IMAGE, random_probabilities(3, 4, 5) * 2, "at row 0, column 0 sum to 2"),
        (
            IMAGE,
            np.stack([np.full((4, 5), x, np.float32) for x in (1.5, -0.5)]),
            "-0.5 of class 1 at row 0, column 0",
        ),
        (IMAGE, random_probabilities(3, 5, 4), "5x4 .* do not match the image of 4x5"),
        (IMAGE, np.ones((4, 5), np.float32), r"shape \(4, 5\): must be a float array"),
        (IMAGE, np.ones((1, 4, 5), np.int64), "dtype int64"),
        (IMAGE, np.ones((0, 4, 5), np.float32), r"shape \(0, 4, 5\)"),
        (IMAGE, [[1.0]], "type list"),
        (IMAGE[..., 0], random_probabilities(3, 4, 5), r"image of dtype uint8, shape \(4, 5\)"),
        (IMAGE / 255, random_probabilities(3, 4, 5), "image of dtype float64"),
        (None, random_probabilities(3, 4, 5), "image of type NoneType"),
    ],
)
def test_invalid_arrays_are_refused_with_the_value(
    image: Any, probabilities: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        dense_crf(image, probabilities)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("bi_w", -1, "at least 0"),
        ("bi_xy", 0, "above 0"),
        ("bi_rgb", math.nan, "above 0"),
        ("pos_w", math.inf, "at least 0"),
        ("pos_xy", "3", "above 0"),
        ("iterations", 2.5, "an integer"),
        ("iterations", -1, "an integer"),
        ("bi_w", True, "at least 0"),
    ],
)
def test_invalid_parameters_are_refused_with_the_value(name: str, value: Any, allowed: str) -> None:
    with pytest.raises(InputError, match=f"{name}={value!r}.*{allowed}"):
        dataclasses.replace(PARAMETERS, **{name: value})


def test_stds_too_small_to_number_the_cells_are_refused() -> None:
    tiny = dataclasses.replace(PARAMETERS, bi_rgb=1e-4)
    with pytest.raises(InputError, match="too small"):
        dense_crf(noise((8, 8, 3)), random_probabilities(2, 8, 8), tiny)


def test_the_parameter_sets_of_the_papers() -> None:
    numbers = {
        name: (p.bi_w, p.bi_xy, p.bi_rgb, p.pos_w, p.pos_xy) for name, p in PARAMETER_SETS.items()
    }
    assert numbers == {
        "v1-largefov": (4, 49, 5, 3, 3),
        "v2-vgg16": (4, 65, 3, 2, 2),
        "v2-resnet101": (4, 67, 3, 3, 1),
        "camvid": (5, 50, 3, 3, 3),
    }
    assert {parameters.iterations for parameters in PARAMETER_SETS.values()} == {10}
    assert find_parameters("camvid") == PARAMETER_SETS["camvid"]
    assert find_parameters(PARAMETERS) is PARAMETERS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        ("{", "JSON"),
        ("[]", "contains no CRF parameters"),
        ('{"parameters": {"bi_w": 1}}', "contains no CRF parameters"),
        (json.dumps({"parameters": {**PARAMETERS.to_json(), "bi_xy": -1}}), "bi_xy=-1"),
        (
            json.dumps({"parameters": {**PARAMETERS.to_json(), "more": 1}}),
            "contains no CRF parameters",
        ),
    ],
)
def test_an_invalid_parameter_file_is_refused(
    tmp_path: Path, content: str | None, message: str
) -> None:
    path = tmp_path / "crf.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        find_parameters(path)
    assert str(path) in str(caught.value)


def test_an_unknown_set_is_refused_with_the_known_names() -> None:
    with pytest.raises(InputError, match="v1-largefov"):
        find_parameters("v9")


def test_without_numba_the_error_names_the_remedy(
    monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path, cli: Cli, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)  # its import fails
    with pytest.raises(InputError, match="pip install numba"):
        dense_crf(IMAGE, random_probabilities(3, 4, 5))
    with pytest.raises(InputError, match="pip install numba"):
        pixelwise.load(tiny_bundle, crf=DEFAULT_PARAMETERS)
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    for arguments in (
        ("predict", tiny_bundle, tmp_path / "a.png", "--crf"),
        ("evaluate", tiny_bundle, tmp_path, "--crf"),
        ("tune-crf", tiny_bundle, tmp_path),
    ):
        result = cli(*arguments)
        assert result.code == 2
        assert "pip install numba" in result.err
        assert len(result.err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_later_process_does_not_compile_again(tmp_path: Path) -> None:
    """The first process fills an empty cache, and the second loads everything from it."""
    code = (
        "from pixelwise.crf import compile_dense_crf, kernels; compile_dense_crf();"
        "used = [f for f in vars(kernels).values() if hasattr(f, 'stats') and f.signatures];"
        "print(len(used), sum(len(f.stats.cache_misses) for f in used if f.stats.cache_path))"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    printed = [
        subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split()
        for _ in range(2)
    ]
    assert int(printed[0][1]) > 5
    assert printed[1][1] == "0"


def test_functions_compile_without_a_writable_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    from numba.core.caching import CacheImpl

    from pixelwise.ops.jit import compiled

    monkeypatch.setattr(CacheImpl, "_locator_classes", [])
    assert compiled(lambda x: x + 1)(1) == 2


# Predictor and commands.


@pytest.fixture(scope="module")
def scene_bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle, whose logits hardly vary, rescaled so that it predicts all its classes."""
    bundle = Bundle.load(tiny_bundle)
    logits = pixelwise.load(tiny_bundle)(noise((24, 32, 3))).logits
    (last,) = (name for name in bundle.weights if bundle.weights[name].shape == (len(logits),))
    bundle.weights[last].sub_(torch.from_numpy(logits.mean(axis=(1, 2))))
    for name in (last, last.removesuffix("bias") + "weight"):
        bundle.weights[name].mul_(1 / float(logits.std(axis=(1, 2)).min()))
    path = tmp_path_factory.mktemp("scene") / "scene.safetensors"
    bundle.save(path)
    return path


def test_the_predictor_returns_refined_probabilities(tiny_bundle: Path) -> None:
    image = noise((30, 40, 3))
    plain, refining = pixelwise.load(tiny_bundle), pixelwise.load(tiny_bundle, crf="camvid")
    result = refining(image)
    expected = dense_crf(image, plain(image).probabilities, "camvid")
    assert np.allclose(result.probabilities, expected, atol=1e-5)
    assert (result.labels == expected.argmax(axis=0)).all()
    assert (refining.predict_labels(image) == result.labels).all()
    assert not np.allclose(plain(image).probabilities, expected, atol=1e-2)


def test_predict_accepts_a_set_or_a_file(
    cli: Cli, tiny_bundle: Path, make_folder_data: MakeData, tmp_path: Path
) -> None:
    data = make_folder_data(tmp_path / "data", splits={"train": 1, "val": 2})
    images = data / "images" / "val"
    (tmp_path / "mine.json").write_text(
        json.dumps({"parameters": PARAMETER_SETS[DEFAULT_PARAMETERS].to_json()})
    )
    masks = []
    for options in (["--crf"], ["--crf-set", "v2-resnet101"], ["--crf-set", "mine.json"]):
        out = tmp_path / f"out{len(masks)}"
        result = cli("predict", tiny_bundle, images, "--out", out, *options)
        assert result.code == 0, result
        masks.append([path.read_bytes() for path in sorted(out.iterdir())])
    assert masks[0] == masks[1] == masks[2]


def test_evaluate_scores_the_refined_labels(
    cli: Cli, scene_bundle: Path, make_folder_data: MakeData, tmp_path: Path
) -> None:
    data = make_folder_data(tmp_path / "data", splits={"train": 1, "val": 2})
    refining = pixelwise.load(scene_bundle, crf="camvid")
    for path in (data / "images" / "val").iterdir():  # the refined labels are the ground truth
        Image.fromarray(refining(path).labels).save(data / "masks" / "val" / path.name)
    result = cli("evaluate", scene_bundle, data, "--crf-set", "camvid", "--json", "-")
    scores = json.loads(result.out)
    assert scores["crf"] == PARAMETER_SETS["camvid"].to_json()
    assert scores["pixel_accuracy"] == 1
    plain = json.loads(cli("evaluate", scene_bundle, data, "--json", "-").out)
    assert "crf" not in plain
    assert plain["pixel_accuracy"] < 0.99
    assert "with CRF" in cli("evaluate", scene_bundle, data, "--crf").out


def test_an_unknown_set_writes_nothing(cli: Cli, tiny_bundle: Path, tmp_path: Path) -> None:
    result = cli("predict", tiny_bundle, tmp_path, "--crf-set", "camvit")
    assert result.code == 2
    assert "'camvit'" in result.err
    assert "camvid" in result.err
    assert list(tmp_path.iterdir()) == []


def test_help_names_the_sets(cli: Cli) -> None:
    text = cli("predict", "--help").out
    for name in PARAMETER_SETS:
        assert name in text
    assert f"alone means {DEFAULT_PARAMETERS}" in " ".join(text.replace("│", " ").split())


def test_tune_crf_finds_the_best_parameters_and_compares_them_on_the_rest(
    tiny_bundle: Path, make_folder_data: MakeData, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        "pixelwise.evaluation.crf_search.COARSE",
        {"bi_xy": (30, 60), "bi_rgb": (3, 6), "bi_w": (3,)},
    )
    data_folder = make_folder_data(tmp_path / "data", splits={"train": 1, "val": 3})
    predictor = pixelwise.load(tiny_bundle)
    data = open_dataset(data_folder, splits=("val",), classes=predictor.classes)
    progress: list[tuple[int, int]] = []
    search = search_crf(
        predictor, data, "val", limit=2, progress=lambda *counts: progress.append(counts)
    )
    assert len(search.trials) == 4 + 26
    scores = [trial.mean_iou for trial in search.trials]
    assert scores == sorted(scores, reverse=True)
    assert len({trial.parameters for trial in search.trials}) == len(search.trials)
    assert search.searched.after == scores[0]
    assert search.searched.images == 2
    assert search.rest is not None
    assert search.rest.images == 1
    total = 2 * (1 + 30) + 2
    assert progress == [(done, total) for done in range(1, total + 1)]
    # The same score as with a Predictor that uses these parameters.
    image, mask = data.read(data.splits["val"][1])
    matrix = ConfusionMatrix(len(data.classes))
    matrix.update(mask, pixelwise.load(tiny_bundle, crf=search.best).predict_labels(image))
    assert search.rest.after == matrix.scores().mean_iou


def test_the_tune_crf_command_prints_and_writes_parameters_for_predict(
    cli: Cli, tiny_bundle: Path, make_folder_data: MakeData, tmp_path: Path
) -> None:
    data = make_folder_data(tmp_path / "data", splits={"train": 1, "val": 2})
    result = cli("tune-crf", tiny_bundle, data, "--json", "crf.json", "--limit", 1)
    assert result.code == 0, result
    found = json.loads((tmp_path / "crf.json").read_text())
    assert f"{100 * found['searched']['before']:.2f} % without" in result.out
    assert f"{100 * found['rest']['after']:.2f} % with it" in result.out
    assert ("leave it out" in result.out) == (not found["helps"])
    assert len(found["trials"]) == 128 + 26
    assert find_parameters(tmp_path / "crf.json") == CRFParameters(**found["parameters"])
