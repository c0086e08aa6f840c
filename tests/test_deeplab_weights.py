"""Weights for DeepLab: its authors' files, kazuto1011's v3 and v3+, VGG16's fields of view."""

from __future__ import annotations

import argparse
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pixelwise
from networks import relative_difference
from pixelwise.backbones import create_backbone
from pixelwise.backbones.mobilenet_v2 import MobileNetV2
from pixelwise.backbones.vgg import AtrousVGG16
from pixelwise.data.voc_palette import VOC_CLASSES
from pixelwise.errors import InputError
from pixelwise.recipes.schema import ModelRecipe
from pixelwise.training.initial_model import create_initial_model
from pixelwise.weights.bundle import Bundle
from pixelwise.weights.convert_weights import convert_weights
from pixelwise.weights.import_weights import import_weights, read_state_dict
from pixelwise.weights.load_backbone import load_backbone
from pixelwise.weights.normalization import CAFFE, IMAGENET, caffe_normalization
from pixelwise.weights.publishers.deeplab_caffe import deeplab_caffe
from test_convert import NETWORKS_PAGE, Cli, random_image, random_network
from test_convert_deeplab import Kazuto, bytes_field, varint

State = Mapping[str, Tensor]
NARROW = 1 / 64  # width of VGG16's stages: 1, 2, 4, 8 and 8 channels
STAGES = ((1, 2), (2, 2), (3, 3), (4, 3), (5, 3))
VGG_LAYERS = [f"conv{stage}_{number + 1}" for stage, count in STAGES for number in range(count)]
FEATURES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)  # torchvision's numbers of them
DEEPLAB_MEAN = caffe_normalization(104.008, 116.669, 122.675)


def write_caffe(path: Path, layers: Mapping[str, list[Tensor]]) -> Path:
    """Write blobs by layer, as a NetParameter of caffe.proto (layer = 100, name = 1, blobs = 7)."""
    data = b""
    for name, blobs in layers.items():
        message = bytes_field(1, name.encode())
        for blob in blobs:
            array = blob.detach().numpy().astype("<f4")
            shape = bytes_field(1, b"".join(varint(side) for side in array.shape))
            message += bytes_field(7, bytes_field(7, shape) + bytes_field(5, array.tobytes()))
        data += bytes_field(100, message)
    path.write_bytes(data)
    return path


def pair(state: State, name: str) -> list[Tensor]:
    return [state[f"{name}.weight"], state[f"{name}.bias"]]


def vgg_layers(state: State) -> dict[str, list[Tensor]]:
    """The convolutions of VGG16's stages by Caffe's names."""
    return {
        layer: pair(state, f"backbone.features.{number}")
        for layer, number in zip(VGG_LAYERS, FEATURES, strict=True)
    }


def assert_equal_states(found: State, expected: State) -> None:
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        if not name.endswith("num_batches_tracked"):
            assert torch.allclose(found[name], tensor, rtol=1e-6, atol=0), name


# --- DeepLab by its authors (Caffe)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "rate": 12, "hidden": 16, "average_pool": True},
        {"kernel_size": 4, "rate": 4, "hidden": 32, "average_pool": False},
        {"kernel_size": 7, "rate": 4, "hidden": 32, "average_pool": False},
    ],
)
def test_v1_by_its_authors_is_converted(tmp_path: Path, options: dict[str, Any]) -> None:
    state = random_network("deeplab_v1", width=NARROW, **options).state_dict()
    layers = vgg_layers(state)
    for layer, index in (("fc6", 0), ("fc7", 3)):
        layers[layer] = pair(state, f"backbone.classifiers.0.{index}")
    layers["fc8_voc12"] = pair(state, "head.score")
    path = write_caffe(tmp_path / "train_iter_6000.caffemodel", layers)
    conversion = convert_weights(path, "deeplab_v1", options={"width": NARROW})
    assert conversion.bundle.options == {**options, "width": NARROW}
    assert conversion.bundle.normalization == DEEPLAB_MEAN
    assert conversion.bundle.classes == VOC_CLASSES
    assert conversion.notes["not used"] == ""
    assert conversion.notes["rate"].startswith(f"{options['rate']}, assumed")
    assert_equal_states(conversion.bundle.weights, state)
    other = convert_weights(path, "deeplab_v1", options={"width": NARROW, "rate": 8})
    assert other.bundle.options["rate"] == 8
    assert "rate" not in other.notes
    backbone = AtrousVGG16(
        fields=((options["kernel_size"], 2),), hidden=options["hidden"], width=NARROW
    )
    assert load_backbone(backbone, "vgg16", path) == DEEPLAB_MEAN
    assert torch.equal(backbone.classifiers[0][3].weight, state["backbone.classifiers.0.3.weight"])


def test_the_command_in_the_documentation_runs(tmp_path: Path, cli: Cli) -> None:
    command = "convert train_iter_6000.caffemodel --model deeplab_v1 --out v1.safetensors"
    assert f"\npixelwise {command}\n" in NETWORKS_PAGE.read_text("utf-8")
    state = random_network("deeplab_v1", width=NARROW, hidden=16).state_dict()
    layers = vgg_layers(state)
    for layer, index in (("fc6", 0), ("fc7", 3)):
        layers[layer] = pair(state, f"backbone.classifiers.0.{index}")
    layers["fc8_voc12"] = pair(state, "head.score")
    write_caffe(tmp_path / "train_iter_6000.caffemodel", layers)
    result = cli(*command.split(), "--set", f"width={NARROW}")
    assert (result.code, result.err) == (0, "")
    assert "12, assumed from fc6's kernel" in result.out
    assert_equal_states(Bundle.load(tmp_path / "v1.safetensors").weights, state)


def test_v2_on_vgg16_by_its_authors_is_converted(tmp_path: Path) -> None:
    small = {"backbone": "vgg16", "width": NARROW, "multi_scale": False}
    state = random_network("deeplab_v2", classes=7, **small).state_dict()
    layers = vgg_layers(state)
    for field in range(4):
        for layer, name in (
            ("fc6", f"backbone.classifiers.{field}.0"),
            ("fc7", f"backbone.classifiers.{field}.3"),
            ("fc8_pascal_context", f"head.scores.{field}"),
        ):
            layers[f"{layer}_{field + 1}"] = pair(state, name)
    path = write_caffe(tmp_path / "net.caffemodel", layers)
    conversion = convert_weights(path, "deeplab_v2", options={"width": NARROW})
    assert conversion.bundle.options == small
    assert len(conversion.bundle.classes) == 7
    assert_equal_states(conversion.bundle.weights, state)
    small_rates = convert_weights(path, "deeplab_v2", options={"width": NARROW, "aspp": "S"})
    assert small_rates.bundle.options == {**small, "aspp": "S"}
    assert "assumed" in conversion.notes["aspp"]
    assert "aspp" not in small_rates.notes
    with pytest.raises(InputError, match="Caffe weights are supported for deeplab_v2, not deepl"):
        convert_weights(path, "deeplab_v1")
    layers["conv_img"] = layers["conv1_1"]  # a branch that no network here has
    write_caffe(path, layers)
    with pytest.raises(InputError, match="has conv_img, which deeplab_v2 does not use"):
        convert_weights(path, "deeplab_v2", options={"width": NARROW})


def caffe_resnet(state: State, *, factor: float) -> dict[str, list[Tensor]]:
    """A ResNet by Caffe's names, whose normalization holds sums and their weight `factor`."""
    layers: dict[str, list[Tensor]] = {}

    def add(convolution: str, norm: str, theirs: str, their_norm: str) -> None:
        layers[theirs] = [state[f"backbone.{convolution}.weight"]]
        mean, variance = (state[f"backbone.{norm}.running_{part}"] for part in ("mean", "var"))
        layers[f"bn{their_norm}"] = [factor * mean, factor * variance, torch.tensor([factor])]
        layers[f"scale{their_norm}"] = pair(state, f"backbone.{norm}")

    add("conv1", "bn1", "conv1", "_conv1")
    for stage, count in enumerate((3, 4, 6, 3), start=1):
        for block in range(count):
            # The authors number the blocks of long stages: res4a, res4b1, res4b2, ...
            long = stage in (2, 3) and block > 0
            label = f"{stage + 1}" + (f"b{block}" if long else "abc"[block])
            ours = f"layer{stage}.{block}"
            if block == 0:
                name = f"{label}_branch1"
                add(f"{ours}.downsample.0", f"{ours}.downsample.1", f"res{name}", name)
            for number, branch in ((1, "2a"), (2, "2b"), (3, "2c")):
                name = f"{label}_branch{branch}"
                add(f"{ours}.conv{number}", f"{ours}.bn{number}", f"res{name}", name)
    return layers


def test_v2_on_resnet_by_its_authors_is_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = random_network("deeplab_v2", backbone="resnet50").state_dict()
    layers = caffe_resnet(state, factor=999.5)
    for branch in range(4):
        layers[f"fc1_voc12_c{branch}"] = pair(state, f"head.branches.{branch}")
    several = dict(layers)
    for name in ("conv1", "bn_conv1", "scale_conv1", "fc1_voc12_c3"):
        several |= {f"{name}_res075": layers[name], f"{name}_res05": layers[name]}
    path = write_caffe(tmp_path / "train2_iter_20000.caffemodel", several)
    imported = import_weights(path)  # once, because it is large
    for module in ("convert_weights", "load_backbone"):
        monkeypatch.setattr(f"pixelwise.weights.{module}.import_weights", lambda _: imported)
    conversion = convert_weights(path, "deeplab_v2")
    assert conversion.bundle.options == {
        "backbone": "resnet50",
        "multi_scale": True,
        "align_corners": True,
    }
    assert conversion.bundle.build().backbone.form == "caffe"
    assert conversion.bundle.normalization == DEEPLAB_MEAN
    assert "16 shared copies" in conversion.notes["not used"]
    assert_equal_states(conversion.bundle.weights, state)
    with pytest.raises(InputError, match=r"in the form of caffe.*model\.options\.caffe=true"):
        convert_weights(path, "deeplab_v2", options={"caffe": False})
    for caffe in (True, False):  # the backbone alone, for training
        backbone = create_backbone("resnet50", output_stride=8, caffe=caffe)
        if caffe:
            assert load_backbone(backbone, "resnet50", path) == DEEPLAB_MEAN
            assert torch.equal(backbone.conv1.weight, state["backbone.conv1.weight"])
        else:
            with pytest.raises(InputError, match="in the form of caffe"):
                load_backbone(backbone, "resnet50", path)
    changed = {**imported.tensors, "conv1_res05.weight": 2 * layers["conv1"][0]}
    with pytest.raises(InputError, match="1 tensors differ from those of image scale 1, such as c"):
        deeplab_caffe(replace(imported, tensors=changed))


# --- VGG16 classifiers become fields of view


def vgg16_classifier(*, caffe: bool) -> tuple[dict[str, Tensor], dict[str, list[Tensor]]]:
    """A small VGG16 with 64 channels in fc6 and fc7, by torchvision's and by Caffe's names."""
    features = AtrousVGG16(width=NARROW).features.state_dict()
    state = {f"features.{name}": torch.rand_like(tensor) for name, tensor in features.items()}
    for name, shape in (("0", (64, 8 * 49)), ("3", (64, 64)), ("6", (10, 64))):
        state[f"classifier.{name}.weight"] = torch.rand(shape)
        state[f"classifier.{name}.bias"] = torch.rand(shape[0])
    layers = {
        layer: pair(state, f"features.{n}") for layer, n in zip(VGG_LAYERS, FEATURES, strict=True)
    }
    for layer, n in (("fc6", 0), ("fc7", 3), ("fc8", 6)):
        layers[layer] = pair(state, f"classifier.{n}")
    return state, layers


@pytest.mark.parametrize("caffe", [False, True])
@pytest.mark.parametrize(
    ("kernel_size", "hidden", "positions"),
    [(3, 16, (0, 3, 6)), (4, 64, (0, 2, 4, 6)), (7, 64, range(7)), (1, 32, (3,))],
)
def test_v1_starts_from_a_classifier(
    tmp_path: Path, caffe: bool, kernel_size: int, hidden: int, positions: tuple[int, ...]
) -> None:
    state, layers = vgg16_classifier(caffe=caffe)
    if caffe:
        path = write_caffe(tmp_path / "vgg.caffemodel", layers)
    else:
        path = tmp_path / "vgg16.pth"
        torch.save(state, path)
    options = {"kernel_size": kernel_size, "hidden": hidden, "width": NARROW, "rate": 2}
    model = pixelwise.create_model("deeplab_v1", num_classes=3, weights=path, **options)
    fc6, fc7 = (model.backbone.classifiers[0][number] for number in (0, 3))
    kernels = state["classifier.0.weight"].reshape(64, 8, 7, 7)
    step = 64 // hidden
    for out in range(hidden):
        for row, y in enumerate(positions):
            for column, x in enumerate(positions):
                assert torch.equal(fc6.weight[out, :, row, column], kernels[step * out, :, y, x])
        assert fc6.bias[out] == state["classifier.0.bias"][step * out]
        assert fc7.bias[out] == state["classifier.3.bias"][step * out]
        for inward in range(hidden):
            expected = state["classifier.3.weight"][step * out, step * inward]
            assert fc7.weight[out, inward, 0, 0] == expected
    for number in FEATURES:
        assert torch.equal(
            model.backbone.features[number].weight, state[f"features.{number}.weight"]
        )


@pytest.mark.parametrize("caffe", [False, True])
def test_v2_on_vgg16_starts_from_a_classifier(tmp_path: Path, caffe: bool) -> None:
    state, layers = vgg16_classifier(caffe=caffe)
    path = write_caffe(tmp_path / "vgg.caffemodel", layers)
    if not caffe:
        torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, path)
    options = {"backbone": "vgg16", "width": NARROW, "multi_scale": False}
    recipe = ModelRecipe(name="deeplab_v2", weights=str(path), options=options)
    start = create_initial_model(recipe, VOC_CLASSES)
    assert start.normalization == (CAFFE if caffe else IMAGENET)
    kernels = state["classifier.0.weight"].reshape(64, 8, 7, 7)[::4, :, ::3, ::3]
    for classifier in start.model.backbone.classifiers:
        assert torch.equal(classifier[0].weight, kernels)
        assert torch.equal(classifier[3].bias, state["classifier.3.bias"][::4])
    conversion = convert_weights(path, "deeplab_v2", options=options)
    assert "subsampled" in conversion.notes["fields of view"]
    assert torch.equal(conversion.bundle.weights["backbone.classifiers.3.0.weight"], kernels)


def test_a_field_of_view_that_no_subsampling_gives_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    state, _ = vgg16_classifier(caffe=False)
    torch.save(state, path)
    for options in ({"kernel_size": 5, "hidden": 16}, {"kernel_size": 3, "hidden": 24}):
        with pytest.raises(
            InputError, match=r"64 channels and a kernel of 7x7.*2, 3, 4, 7 and a d"
        ):
            pixelwise.create_model(
                "deeplab_v1", num_classes=3, weights=path, width=NARROW, **options
            )
    del state["classifier.3.bias"]
    torch.save(state, path)
    with pytest.raises(InputError, match=r"w\.pth: lacks classifier\.3\.bias"):
        pixelwise.create_model("deeplab_v1", num_classes=3, weights=path, width=NARROW, hidden=16)


# --- kazuto1011's v3 and v3+


class KazutoV3(Kazuto):
    """DeepLabV3 and V3+ as in kazuto1011's libs/models: the stride is in `reduce`."""

    def single(self, x: Tensor, *, decoder: bool = False) -> Tensor:
        size = x.shape[2:]
        x = F.relu(self.layer(x, "layer1.conv1", 64, 7, stride=2))
        x = F.max_pool2d(x, 3, 2, 1, ceil_mode=True)
        detail = x
        for stage, (stride, rate) in enumerate(((1, 1), (2, 1), (2, 1), (1, 2))):
            channels = 64 * 2**stage
            for block in range(1, self.blocks[stage] + 1):
                name, step = f"layer{stage + 2}.block{block}", stride if block == 1 else 1
                unit = rate * (1, 2, 4)[block - 1] if stage == 3 else rate
                h = F.relu(self.layer(x, f"{name}.reduce", channels, stride=step))
                h = F.relu(self.layer(h, f"{name}.conv3x3", channels, 3, rate=unit))
                h = self.layer(h, f"{name}.increase", 4 * channels)
                if block == 1:
                    x = self.layer(x, f"{name}.shortcut", 4 * channels, stride=step)
                x = F.relu(h + x)
            detail = x if stage == 0 else detail
        maps = [F.relu(self.layer(x, "aspp.stages.c0", 256))]
        for number, rate in enumerate((6, 12, 18), start=1):
            maps.append(F.relu(self.layer(x, f"aspp.stages.c{number}", 256, 3, rate=rate)))
        pooled = x.mean(dim=(2, 3), keepdim=True)
        pooled = F.relu(self.layer(pooled, "aspp.stages.imagepool.conv", 256))
        maps.append(pooled.expand(-1, -1, *x.shape[2:]))
        x = F.relu(self.layer(torch.cat(maps, dim=1), "fc1", 256))
        name = "fc2"
        if decoder:
            low = F.relu(self.layer(detail, "reduce", 48))
            x = torch.cat([F.interpolate(x, size=low.shape[2:], mode="bilinear"), low], dim=1)
            x = F.relu(self.layer(x, "fc2.conv1", 256, 3))
            x = F.relu(self.layer(x, "fc2.conv2", 256, 3))
            name = "fc2.conv3"
        weight = self.get(f"{name}.weight", self.classes, 256, 1, 1)
        x = F.conv2d(x, weight, self.get(f"{name}.bias", self.classes))
        return F.interpolate(x, size=size, mode="bilinear")


@pytest.mark.parametrize("model", ["deeplab_v3", "deeplab_v3plus"])
def test_kazuto1011s_v3_and_v3plus_give_the_same_logits(tmp_path: Path, model: str) -> None:
    published = KazutoV3(prefix="", blocks=(3, 4, 6, 3))
    rgb = random_image(56, 72)
    bgr = rgb[:, :, ::-1].astype(np.float32) - np.array([104.008, 116.669, 122.675], "f4")
    image = torch.from_numpy(bgr.transpose(2, 0, 1).copy())[None]
    expected = published.single(image, decoder=model == "deeplab_v3plus")
    torch.save(published.state, tmp_path / "w.pth")
    conversion = convert_weights(tmp_path / "w.pth", model)
    bundle = conversion.bundle
    assert bundle.options == {"backbone": "resnet50", "output_stride": 16, "caffe": True}
    assert conversion.notes["not used"] == ""
    with torch.no_grad():
        images = bundle.normalization(torch.from_numpy(rgb).permute(2, 0, 1)[None])
        logits = bundle.build()(images)
    assert relative_difference(logits, expected) < 1e-5
    with pytest.raises(InputError, match=f"supported for {model}, not deeplab_v2"):
        convert_weights(tmp_path / "w.pth", "deeplab_v2")
    several = {f"base.{name}": tensor for name, tensor in published.state.items()}
    torch.save(several, tmp_path / "w.pth")
    with pytest.raises(InputError, match=f"holds {model} at several image scales"):
        convert_weights(tmp_path / "w.pth", model)


@pytest.mark.parametrize("model", ["deeplab_v3", "deeplab_v3plus"])
@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v2"])
def test_caffes_form_needs_bottlenecks(model: str, backbone: str) -> None:
    with pytest.raises(InputError, match="caffe True: is an option of resnet50, resnet101"):
        pixelwise.create_model(model, num_classes=2, backbone=backbone, caffe=True)


# --- Weights of another form of the same network


def random_state(module: nn.Module) -> dict[str, Tensor]:
    return {
        key: torch.rand_like(tensor) if tensor.is_floating_point() else tensor
        for key, tensor in module.state_dict().items()
    }


def test_torchvisions_resnet_gets_torchvisions_form(tmp_path: Path, cli: Cli) -> None:
    path = tmp_path / "resnet50.pth"
    state = random_state(create_backbone("resnet50", output_stride=32))
    torch.save({**state, "fc.weight": torch.rand(5, 2048), "fc.bias": torch.rand(5)}, path)
    options = {"backbone": "resnet50"}
    conversion = convert_weights(path, "deeplab_v2", options=options)
    assert conversion.bundle.options["caffe"] is False
    assert conversion.bundle.build().backbone.form == "torchvision"
    assert "3x3 convolution" in conversion.notes["form"]
    refusal = r"in the form of torchvision, but the network has that of caffe.*caffe=false"
    with pytest.raises(InputError, match=refusal):
        convert_weights(path, "deeplab_v2", options={**options, "caffe": True})
    with pytest.raises(InputError, match=refusal):
        pixelwise.create_model("deeplab_v2", num_classes=2, weights=path, backbone="resnet50")
    recipe = ModelRecipe(name="deeplab_v2", weights=str(path), options=options)
    with pytest.raises(InputError, match=refusal):
        create_initial_model(recipe, VOC_CLASSES)
    line = cli(
        *("convert", path, "--model", "deeplab_v2", "--out", tmp_path / "b.safetensors"),
        *("--set", "backbone=resnet50", "--set", "caffe=true"),
    )
    assert line.code == 2
    assert len(line.err.strip().splitlines()) == 1
    conversion.bundle.save(tmp_path / "b.safetensors")
    recipe = ModelRecipe(
        name="deeplab_v2", weights=str(tmp_path / "b.safetensors"), options=options
    )
    with pytest.raises(InputError, match=refusal):  # a bundle keeps the form of its weights
        create_initial_model(recipe, VOC_CLASSES)


def test_torchvisions_mobilenet_is_not_loaded_in_tensorflows_form(tmp_path: Path) -> None:
    torch.save(random_state(MobileNetV2()), tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"model\.options\.tensorflow=false"):
        load_backbone(MobileNetV2(tensorflow=True), "mobilenet_v2", tmp_path / "w.pth")


# --- Odd forms of PyTorch's files


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"model": state, "epoch": 3, "optimizer": {"state": {}, "param_groups": []}},
        lambda state: {"state_dict": OrderedDict((f"module.{k}", v) for k, v in state.items())},
        lambda state: {f"module._orig_mod.{name}": tensor for name, tensor in state.items()},
        lambda state: {"step": torch.tensor(7), "model_state_dict": state},
    ],
)
def test_a_wrapped_state_dict_is_read(
    tmp_path: Path, wrap: Callable[[dict[str, Tensor]], dict[str, Any]]
) -> None:
    state = random_state(MobileNetV2())
    torch.save(wrap(state), tmp_path / "w.pth")
    backbone = MobileNetV2()
    assert load_backbone(backbone, "mobilenet_v2", tmp_path / "w.pth") == IMAGENET
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, state[name]), name


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (nn.Linear(2, 2), r"holds Python objects \(torch\.nn\.modules\.linear\.Linear\)"),
        ({"model": {"a": torch.ones(1)}, "args": argparse.Namespace(lr=1)}, "argparse.Namespace"),
        (
            {"model": {"a": torch.ones(1)}, "ema": {"a": torch.ones(1)}},
            r"several .* \(model, ema\)",
        ),
        ({"model": {"a": torch.ones(1)}, "b": torch.ones(1)}, r"several .* \(model and other tens"),
        ({"a": torch.eye(2).to_sparse()}, "a is sparse, quantized or without values"),
        ({"a": torch.ones(2, device="meta")}, "a is sparse, quantized or without values"),
        ({}, "does not contain a state dict"),
    ],
)
def test_what_is_not_one_state_dict_is_refused(
    tmp_path: Path, content: object, message: str
) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(InputError, match=message) as caught:
        read_state_dict(tmp_path / "w.pth")
    assert "save one with torch.save(model.state_dict(), path)" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_a_script_is_refused_with_the_remedy(tmp_path: Path) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "w.pt"))
    with pytest.raises(InputError, match=r"TorchScript.*torch\.save\(model\.state_dict\(\)"):
        read_state_dict(tmp_path / "w.pt")


def test_integers_are_not_taken_for_weights(tmp_path: Path) -> None:
    state = random_state(MobileNetV2())
    state["features.0.0.weight"] = (100 * state["features.0.0.weight"]).to(torch.int8)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"features\.0\.0\.weight has numbers of type int8"):
        load_backbone(MobileNetV2(), "mobilenet_v2", tmp_path / "w.pth")


def test_a_bundle_with_other_tensors_is_refused(tmp_path: Path) -> None:
    model = random_network("deeplab_v3plus", classes=21, backbone="tiny")
    path = tmp_path / "b.safetensors"
    weights = {**model.state_dict(), "head.extra.weight": torch.ones(2)}
    Bundle("deeplab_v3plus", {"backbone": "tiny"}, VOC_CLASSES, IMAGENET, weights).save(path)
    with pytest.raises(InputError, match="its weights do not fit deeplab_v3plus"):
        Bundle.load(path).build()
    Bundle(
        "deeplab_v3plus",
        {"backbone": "tiny"},
        VOC_CLASSES,
        IMAGENET,
        {**model.state_dict(), "backbone.extra.weight": torch.ones(2)},
    ).save(path)
    with pytest.raises(InputError, match=r"has backbone\.extra, which tiny does not use"):
        load_backbone(create_backbone("tiny", output_stride=16), "tiny", path)


def test_a_classifier_of_caffe_is_refused_for_a_network_without_its_backbone(
    tmp_path: Path,
) -> None:
    path = write_caffe(tmp_path / "vgg.caffemodel", vgg16_classifier(caffe=True)[1])
    with pytest.raises(InputError, match="supported for vgg16, caffenet, not mobilenet_v2"):
        convert_weights(path, "deeplab_v3plus")
