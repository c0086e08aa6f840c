"""Tiles match one pass over the full image, and these tests notice when they do not."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.export import Dim, ExportedProgram

from pixelwise.data.classes import Classes
from pixelwise.errors import InputError
from pixelwise.exporters.capture import DeployedModel, capture
from pixelwise.exporters.formats import load_format, silence_converters
from pixelwise.inference.export_manifest import ExportManifest
from pixelwise.inference.runtimes import (
    Runtime,
    TileView,
    TilingRequirements,
    TilingRuntime,
    open_export,
    supports_tiling,
)
from pixelwise.inference.runtimes.torch.torch_runtime import TorchRuntime
from pixelwise.inference.tiling import tiled_model
from pixelwise.inference.tiling.tile_grid import RAMP, blend, cut, smallest_tile
from pixelwise.inference.tiling.tiled_model import TiledModel
from pixelwise.layers import ImagePooling
from pixelwise.models import create_model, measure_receptive_radius, peak_bytes
from pixelwise.weights.bundle import Bundle
from pixelwise.weights.normalization import IMAGENET

CLASSES = Classes.make(["one", "two", "three"])
SMALL = {
    "backbone": "tiny",
    "aspp": False,
}  # image pooling, two resizes, and a small receptive field


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth, and darker towards the right, so that tiles have another mean than the image."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.uniform(0, 255, (1, 3, height // 8 + 2, width // 8 + 2)))
    fine = nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")[0]
    return (fine.permute(1, 2, 0).numpy() * np.linspace(1, 0.2, width)[:, None]).astype(np.uint8)


def network(name: str = "deeplab_v3plus", **options: Any) -> nn.Module:
    """A network with realistic statistics and scores, as after training."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, **options)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.5, 2)
        elif isinstance(module, nn.Conv2d) and not module.weight.any():
            nn.init.normal_(module.weight, std=0.1)
    return model.eval()


@pytest.fixture(scope="module")
def balanced() -> nn.Module:
    """A network whose classes have equal mean scores, so that many pixels are close calls."""
    model = network(**SMALL)
    logits = TorchRuntime(model, IMAGENET).logits(photo(500, 611))
    with torch.no_grad():
        model.head.classify.bias -= torch.from_numpy(logits.mean(axis=(1, 2)))
    return model


@pytest.fixture(scope="module")
def small(balanced: nn.Module) -> TorchRuntime:
    return TorchRuntime(balanced, IMAGENET)


@pytest.fixture(scope="module", params=["torch", "openvino", "onnx"])
def runtime(
    balanced: nn.Module, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> TilingRuntime:
    """The same network in each runtime that supports tiling."""
    if request.param == "torch":
        return TorchRuntime(balanced, IMAGENET)
    folder = tmp_path_factory.mktemp(request.param)
    return exported(balanced, "deeplab_v3plus", SMALL, request.param, folder)


PROGRAMS: dict[nn.Module, tuple[ExportedProgram, TilingRequirements]] = {}
"""Captured networks, which are converted to each target."""


def exported(
    model: nn.Module, name: str, options: dict[str, Any], target: str, folder: Path
) -> TilingRuntime:
    """Export and load a network as `pixelwise export` and `Predictor.load` do."""
    if model not in PROGRAMS:
        bundle = Bundle(name, options, CLASSES, IMAGENET, model.state_dict())
        with silence_converters():
            PROGRAMS[model] = capture(bundle), TorchRuntime(model, IMAGENET).requirements
    return opened(*PROGRAMS[model], target, folder)


def opened(
    program: ExportedProgram, requirements: TilingRequirements, target: str, folder: Path
) -> TilingRuntime:
    with silence_converters():
        file = load_format(target).write(program, folder)
    export = ExportManifest(
        folder=folder,
        file=file,
        target=target,
        precision="float32",
        bundle="",
        model="",
        classes=CLASSES,
        recipe={},
        requirements=requirements,
    )
    export.save()
    runtime: Runtime = open_export(export)
    assert supports_tiling(runtime)
    return runtime


def error(one: np.ndarray, other: np.ndarray) -> float:
    """Return the largest difference relative to the range of the first array."""
    return float(np.abs(one - other).max() / (one.max() - one.min()))


@given(
    st.integers(1, 9000),
    st.integers(0, 300),
    st.sampled_from([1, 8, 16, 32, 80]),
    st.integers(0, 700),
)
def test_tiles_follow_their_rules(length: int, margin: int, step: int, more: int) -> None:
    tile = smallest_tile(margin=margin, step=step) + more
    spans = cut(length, tile=tile, margin=margin, step=step)
    assert spans[0].start == spans[0].core_start == 0
    assert spans[-1].stop == spans[-1].core_stop == length
    assert {span.stop - span.start for span in spans} == {spans[0].stop}  # of equal size
    assert spans[0].stop <= tile
    for span in spans:
        assert span.start % step == 0
        assert (length - spans[0].stop) % step == 0  # sides match the image's
    for left, right in pairwise(spans):
        assert left.core_stop == right.core_start
        assert left.core_stop % step == 0
        assert min(left.stop - left.core_stop, right.core_start - right.start) >= max(margin, RAMP)
        assert left.core_stop - left.core_start >= 2 * RAMP


def test_a_tile_smaller_than_its_margins_is_refused() -> None:
    with pytest.raises(ValueError, match="does not hold two margins"):
        cut(5000, tile=400, margin=200, step=16)


@given(st.integers(60, 400), st.integers(60, 400), st.integers(0, 40))
def test_blending_equal_scores_changes_nothing_and_covers_the_image(
    height: int, width: int, margin: int
) -> None:
    whole = np.random.default_rng(0).random((2, height, width), np.float32)
    tile = smallest_tile(margin=margin, step=8)
    rows, columns = (cut(side, tile=tile, margin=margin, step=8) for side in (height, width))
    found = np.full_like(whole, np.nan)
    for block in blend(
        rows, columns, lambda r, c: whole[:, r.start : r.stop, c.start : c.stop].copy()
    ):
        h, w = block.scores.shape[1:]
        target = found[:, block.top : block.top + h, block.left : block.left + w]
        assert np.isnan(target).all()  # no pixel twice
        block.paste(block.scores, found)
    assert np.allclose(found, whole, atol=1e-6)


def test_tiles_that_disagree_fade_into_each_other() -> None:
    """With constants 0 and 1, the steps in between are no steeper than the ramp's."""
    columns = cut(300, tile=200, margin=20, step=8)
    rows = cut(50, tile=200, margin=20, step=8)
    values = {column.start: float(i) for i, column in enumerate(columns)}
    line = np.zeros((1, 50, 300), np.float32)
    for block in blend(
        rows,
        columns,
        lambda r, c: np.full((1, r.stop, c.stop - c.start), values[c.start], np.float32),
    ):
        block.paste(block.scores, line)
    assert line[0, 0, 0] == 0
    assert line[0, 0, -1] == len(columns) - 1
    steps = np.diff(line[0, 0])
    assert (steps >= -1e-6).all()
    # The steepest step of the cosine is pi / 2 times the mean step.
    assert steps.max() < 1.6 / (2 * RAMP)


NETWORKS = [
    ("deeplab_v3plus", SMALL),
    ("deeplab_v3plus", {"backbone": "tiny"}),
    ("deeplab_v3plus", {**SMALL, "align_corners": True}),
    ("deeplab_v3plus", {"tensorflow": True, "decoder": False, "aspp": False, "width": 0.1}),
    ("deeplab_v3plus", {"backbone": "efficientnet_lite0"}),
    ("deeplab_v3plus", {"backbone": "tiny", "stride_2_skip": True, "input_scale": 1.25}),
    ("deeplab_v3", {"backbone": "tiny", "output_stride": 8}),
    ("deeplab_v1", {"width": 0.02, "hidden": 16, "multi_scale": True}),
    ("fcn8s", {"width": 0.02}),
    ("fcn8s", {"width": 0.02, "upsampling": "interpolate"}),
    ("fcn16s", {"width": 0.02, "ceil_mode": False}),
    ("fcn_alexnet", {"width": 0.05}),
    ("fcn_resnet", {"backbone": "resnet18"}),
]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param(*one, marks=pytest.mark.slow if "efficientnet_lite0" in str(one) else ())
        for one in NETWORKS
    ],
)
def test_tiles_with_full_margins_equal_one_pass(
    name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a margin of the full receptive radius, up to rounding, for sides no stride divides."""
    assert_tiles_equal_one_pass(TorchRuntime(network(name, **options), IMAGENET), monkeypatch)


QUICK = {0, 2, 5}  # to export
shared_network = cache(lambda number: network(NETWORKS[number][0], **NETWORKS[number][1]))


@pytest.mark.parametrize("target", ["openvino", "onnx"])
@pytest.mark.parametrize(
    "number",
    [
        pytest.param(
            number,
            marks=() if number in QUICK else pytest.mark.slow,
            id=f"{one[0]}-options{number}",
        )
        for number, one in enumerate(NETWORKS)
    ],
)
def test_tiles_of_an_export_equal_its_one_pass(
    number: int, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = exported(shared_network(number), *NETWORKS[number], target, tmp_path)
    assert_tiles_equal_one_pass(runtime, monkeypatch)


def assert_tiles_equal_one_pass(runtime: TilingRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled_model, "MARGIN", 1)
    requirements = runtime.requirements
    tile = smallest_tile(margin=requirements.receptive_radius, step=requirements.step)
    image = photo(tile + 21, tile - 37)
    whole = runtime.logits(image)
    assert error(whole, TiledModel(runtime, tile=tile).logits(image)) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("deeplab_v2", {"backbone": "resnet50"}),
        ("deeplab_v3plus", {}),
        ("deeplab_v3", {"backbone": "resnet50"}),
        ("deeplab_v3_cascade", {"backbone": "resnet50"}),
        ("fcn_googlenet", {}),
    ],
)
def test_tiles_equal_one_pass_for_large_networks(
    name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiled_model, "MARGIN", 1)
    runtime = TorchRuntime(network(name, **options), IMAGENET)
    requirements = runtime.requirements
    tile = smallest_tile(margin=requirements.receptive_radius, step=requirements.step)
    image = photo(tile + 21, 230)
    whole = runtime.logits(image)
    assert error(whole, TiledModel(runtime, tile=tile).logits(image)) < 1e-4


def test_the_mean_computed_from_tiles_is_that_of_the_full_image(small: TorchRuntime) -> None:
    """From the sums of several tiles, and of one tile that is the full image."""
    image, requirements = photo(301, 333), small.requirements
    (whole,) = means(small, image, cut(301, tile=999, margin=0, step=16), columns=1)
    rows = cut(301, tile=smallest_tile(margin=requirements.pooled_receptive_radius, step=16),
               margin=requirements.pooled_receptive_radius, step=16)  # fmt: skip
    (tiled,) = means(small, image, rows, columns=1)
    assert len(rows) > 1
    assert np.allclose(tiled, whole, rtol=1e-6, atol=1e-7)
    half = photo(301, 333)[:, :160]
    (other,) = means(small, half, cut(301, tile=999, margin=0, step=16), columns=1)
    assert not np.allclose(other, whole, rtol=1e-2)


def means(runtime: TilingRuntime, image: np.ndarray, rows: list, columns: int) -> list[np.ndarray]:
    total, count = np.zeros(1), 0
    for row in rows:
        sums, positions = runtime.tile_sums(
            image[row.start : row.stop],
            TileView(image.shape[:2], row.start, 0),
            (row.core, slice(0, image.shape[1])),
        )
        total, count = total + sums, count + positions
    return [total / count]


def labels_differ(runtime: Runtime, image: np.ndarray, found: np.ndarray) -> float:
    return float((runtime.predict_labels(image) != found).mean())


def test_planted_seams_are_noticed(runtime: TilingRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit of 0.05 % holds, but not without margins or without the full image's mean."""
    image = photo(500, 611)
    tile = smallest_tile(margin=runtime.requirements.receptive_radius, step=16)
    assert (
        labels_differ(runtime, image, TiledModel(runtime, tile=tile).predict_labels(image)) < 5e-4
    )

    separate = TiledModel(WithoutTiling(runtime), tile=10**6)
    monkeypatch.setattr(tiled_model, "DEFAULT_REQUIREMENTS", runtime.requirements)
    separate.tile = tile
    assert labels_differ(runtime, image, separate.predict_labels(image)) > 5e-4

    monkeypatch.setattr(tiled_model, "MARGIN", 0)
    least = smallest_tile(margin=0, step=16)
    assert (
        labels_differ(runtime, image, TiledModel(runtime, tile=least).predict_labels(image)) > 5e-4
    )


class WithoutTiling:
    """A runtime that does not support tiling."""

    name = "without tiling"

    def __init__(self, runtime: Runtime) -> None:
        self.logits, self.predict_labels = runtime.logits, runtime.predict_labels


def test_a_runtime_without_tiling_still_covers_every_pixel() -> None:
    runtime = TorchRuntime(network("fcn8s", width=0.02), IMAGENET)  # neither pooling nor resizing
    tiled = TiledModel(WithoutTiling(runtime), tile=1100)
    assert not tiled.in_one_pass((1152, 64))
    image = photo(1152, 64)
    assert error(runtime.logits(image), tiled.logits(image)) < 1e-5
    assert tiled.logits(image[:1129, :51]).shape == (3, 1129, 51)  # padded, cropped


class TwicePooled(nn.Module):
    """A network whose second image pooling depends on the first."""

    scales = ()
    input_scale = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.backbone.strides = {"c1": 4}  # type: ignore[assignment]
        self.first, self.second = ImagePooling(8, 8), ImagePooling(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.backbone(x)
        maps = torch.relu(maps - self.first(maps))
        return nn.functional.interpolate(self.second(maps) + maps[:, :3], size=x.shape[2:])


@pytest.mark.parametrize("kind", ["torch", "openvino", "onnx"])
def test_each_image_pooling_takes_one_pass(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = TwicePooled().eval()
    runtime: TilingRuntime = TorchRuntime(model, IMAGENET)
    assert runtime.requirements.poolings == 2
    if kind != "torch":
        with silence_converters():
            program = torch.export.export(
                DeployedModel(model, IMAGENET).eval(),
                (torch.zeros(1, 97, 131, 3, dtype=torch.uint8),),
                dynamic_shapes={"image": {1: Dim.DYNAMIC, 2: Dim.DYNAMIC}},
            )
        runtime = opened(program, runtime.requirements, kind, tmp_path)
    image = photo(160, 180)
    seen: list[tuple[int, int]] = []
    tiled = TiledModel(runtime, tile=smallest_tile(margin=8, step=4))
    blocks = list(
        tiled.blocks(
            tiled_model.ArraySource(image), progress=lambda done, total: seen.append((done, total))
        )
    )
    found = np.empty((3, 160, 180), np.float32)
    for block in blocks:
        block.paste(block.scores, found)
    assert error(runtime.logits(image), found) < 1e-5
    assert seen == [(i + 1, 3 * len(blocks)) for i in range(3 * len(blocks))]


def strided(kernel: int, *, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    padding = dilation * (kernel - 1) // 2
    return nn.Conv2d(3, 3, kernel, stride=stride, dilation=dilation, padding=padding)


@pytest.mark.parametrize(
    ("layers", "receptive_radius"),
    [
        ([strided(3)], 1),
        ([strided(3), strided(3, dilation=4)], 5),
        (
            [strided(7), nn.ReLU6(), strided(3, dilation=600)],
            603,
        ),  # longer than the first strip that is tried
        ([strided(1), nn.MaxPool2d(5, stride=1, padding=2)], 2),
    ],
)
def test_the_receptive_radius_is_half_of_the_receptive_field(
    layers: list[nn.Module], receptive_radius: int
) -> None:
    assert measure_receptive_radius(nn.Sequential(*layers).eval(), step=1) == (receptive_radius, 0)


def test_the_receptive_radius_with_a_stride() -> None:
    """The stride-2 convolution has 3x3 windows around every other pixel. After upsampling by
    repetition, output 2i + 1 shows window i, which covers the pixels 2i - 1 to 2i + 1."""
    model = nn.Sequential(strided(3, stride=2), nn.Upsample(scale_factor=2)).eval()
    assert measure_receptive_radius(model, step=2) == (2, 0)


def test_memory_is_measured_over_the_maps_alive_at_once() -> None:
    """At the peak, the 3 channels of the image, which the caller holds, the 8 of the first layer
    and the 2 of the second are alive, 10x10 each. Weights are not counted."""
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(inplace=True), nn.Conv2d(8, 2, 1)).eval()
    assert peak_bytes(model, height=10, width=10) == 4 * 100 * (8 + 2 + 3)


def test_auto_uses_one_pass_if_memory_allows(small: TorchRuntime) -> None:
    pixels = 2 * tiled_model.SMALL_IMAGE
    size = (1024, pixels // 1024)
    needed = pixels * small.requirements.bytes_per_pixel
    assert TiledModel(small, memory=int(needed * 1.01)).in_one_pass(size)
    assert not TiledModel(small, memory=int(needed * 0.99)).in_one_pass(size)
    assert TiledModel(small, memory=0).in_one_pass((1024, 1024))  # small images are not measured
    assert TiledModel(small, tile="none", memory=0).in_one_pass((10**5, 10**5))
    assert TiledModel(small, tile=500).in_one_pass((500, 500))
    assert not TiledModel(small, tile=500).in_one_pass((500, 501))


def test_labels_may_take_one_pass_where_logits_do_not(small: TorchRuntime) -> None:
    class CheapLabels(WithoutTiling):
        requirements = replace(small.requirements, bytes_per_pixel=1000, label_bytes_per_pixel=100)
        tile_logits = small.tile_logits

    size = (2048, 2048)
    tiled = TiledModel(CheapLabels(small), memory=500 * 2048**2)
    assert tiled.in_one_pass(size, labels=True)
    assert not tiled.in_one_pass(size)


def test_a_tile_too_small_for_the_network_is_refused_with_the_smallest_size(
    small: TorchRuntime,
) -> None:
    with pytest.raises(
        InputError,
        match=r"tile 64: the receptive field of this network extends \d+ .*: give \d+ or",
    ):
        TiledModel(small, tile=64).logits(photo(200, 200))
    for tile in (0, -5, "all"):
        with pytest.raises(InputError, match="allowed are auto, none and a number of pixels"):
            TiledModel(small, tile=tile)


def test_a_runtime_without_tiling_takes_a_camera_image_in_one_pass() -> None:
    runtime = TorchRuntime(network(**SMALL), IMAGENET)
    camera, larger = (3000, 4000), (4000, 4000)
    assert TiledModel(WithoutTiling(runtime)).in_one_pass(camera)
    assert not TiledModel(WithoutTiling(runtime)).in_one_pass(larger)
