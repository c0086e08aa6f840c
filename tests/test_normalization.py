"""Normalization: the same arithmetic as when the networks were trained, in RGB or BGR."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pixelwise.data.voc_palette import VOC_CLASSES, voc_color
from pixelwise.weights.normalization import CAFFE, GOOGLENET, IMAGENET, Normalization

BGR = Normalization((0.1, 0.2, 0.3), (0.5, 0.25, 0.125), order="bgr")


def random_images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)


def as_batch(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def test_caffe_is_bgr_minus_the_mean_of_the_reference_code() -> None:
    images = random_images()
    expected = images.astype(np.float64)[..., ::-1] - (104.00699, 116.66877, 122.67892)
    out = CAFFE(as_batch(images))
    assert out.dtype == torch.float32
    assert np.allclose(out.numpy().transpose(0, 2, 3, 1), expected, atol=1e-4)


def test_googlenet_equals_imagenet_followed_by_transform_input() -> None:
    images = as_batch(random_images())
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (IMAGENET.mean, IMAGENET.std))
    expected = IMAGENET(images) * (std / 0.5) + (mean - 0.5) / 0.5
    assert torch.allclose(GOOGLENET(images), expected, atol=1e-5)


@pytest.mark.parametrize("normalization", [IMAGENET, CAFFE, GOOGLENET, BGR])
def test_the_memory_format_is_kept(normalization: Normalization) -> None:
    images = as_batch(random_images())  # a view of H x W x C: channels_last
    for batch in (images, images.contiguous(), images.float()):
        assert normalization(batch).stride() == batch.stride()
    assert torch.equal(normalization(images), normalization(images.contiguous()))


@pytest.mark.parametrize("normalization", [IMAGENET, CAFFE, GOOGLENET, BGR])
def test_the_fill_is_rgb_and_normalizes_to_zero(normalization: Normalization) -> None:
    fill = torch.tensor(normalization.fill()).view(1, 3, 1, 1)
    assert normalization(fill).abs().max() <= 1e-4
    assert CAFFE.fill() == pytest.approx((122.67892, 116.66877, 104.00699))


def test_json_round_trip_and_a_missing_order_means_rgb() -> None:
    for normalization in (IMAGENET, CAFFE, GOOGLENET, BGR):
        assert Normalization.from_json(normalization.to_json()) == normalization
    without_order = {"mean": list(IMAGENET.mean), "std": list(IMAGENET.std)}
    assert Normalization.from_json(without_order) == IMAGENET
    for order in ("grb", "RGB", 17, None, []):
        with pytest.raises(ValueError, match="order"):
            Normalization.from_json({**without_order, "order": order})


def test_voc_has_the_colors_of_its_development_kit() -> None:
    colors = dict(zip(VOC_CLASSES.names, VOC_CLASSES.colors, strict=True))
    assert len(VOC_CLASSES) == 21
    assert colors["background"] == (0, 0, 0)
    assert colors["aeroplane"] == (128, 0, 0)
    assert colors["bottle"] == (128, 0, 128)
    assert colors["cat"] == (64, 0, 0)
    assert colors["person"] == (192, 128, 128)
    assert colors["tvmonitor"] == (0, 64, 128)
    assert (VOC_CLASSES.ignore, VOC_CLASSES.ignore_color) == (255, (224, 224, 192))
    assert len({voc_color(value) for value in range(256)}) == 256


@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize("channels", [3, 5])
def test_channels_last_gives_the_same_values(order: str, channels: int) -> None:
    numbers = tuple(0.1 * (i + 1) for i in range(channels))
    normalization = Normalization(numbers, tuple(reversed(numbers)), order)
    images = torch.randint(0, 256, (1, channels, 4, 5), dtype=torch.uint8)
    last = normalization(images.permute(0, 2, 3, 1), channel_axis=3)
    assert torch.equal(last.permute(0, 3, 1, 2), normalization(images))
