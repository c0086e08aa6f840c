"""Conversion of published weights: equal logits, use of every tensor, one line per problem."""

from __future__ import annotations

import hashlib
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fixture_types import Cli, MakeData
from networks import randomize, relative_difference
from pixelwise.backbones import create_backbone
from pixelwise.backbones.alexnet import AlexNet, CaffeNet
from pixelwise.backbones.googlenet import GoogLeNet
from pixelwise.backbones.vgg import VGG16
from pixelwise.data.classes import Classes, write_classes_toml
from pixelwise.data.voc_palette import VOC_CLASSES
from pixelwise.errors import InputError
from pixelwise.inference import Predictor
from pixelwise.models import create_model
from pixelwise.weights.bundle import Bundle
from pixelwise.weights.convert_weights import convert_weights
from pixelwise.weights.load_backbone import load_backbone
from pixelwise.weights.normalization import CAFFE, GOOGLENET, IMAGENET

protobuf = pytest.importorskip("google.protobuf", reason="pip install 'protobuf>=6'")

Blobs = list[np.ndarray]

NARROW = 1 / 32  # width of VGG16
WIDTH = {"width": NARROW}
NETWORKS_PAGE = Path(__file__).parent.parent / "docs" / "networks.md"

# The authors' names of VGG16's layers, and their index in torchvision's `features`.
VGG_LAYERS = {
    "conv1_1": 0,
    "conv1_2": 2,
    "conv2_1": 5,
    "conv2_2": 7,
    "conv3_1": 10,
    "conv3_2": 12,
    "conv3_3": 14,
    "conv4_1": 17,
    "conv4_2": 19,
    "conv4_3": 21,
    "conv5_1": 24,
    "conv5_2": 26,
    "conv5_3": 28,
}
VGG = {
    **{layer: f"backbone.features.{index}" for layer, index in VGG_LAYERS.items()},
    "fc6": "backbone.classifier.0",
    "fc7": "backbone.classifier.3",
}
CAFFENET = {
    "conv1": "backbone.features.0",
    "conv2": "backbone.features.4",
    "conv3": "backbone.features.8",
    "conv4": "backbone.features.10",
    "conv5": "backbone.features.12",
    "fc6": "backbone.classifier.0",
    "fc7": "backbone.classifier.3",
}
FR = {"score_fr": "head.score"}
POOL4 = {"score_pool4": "head.skips.c4"}
POOL3 = {"score_pool3": "head.skips.c3"}
# Layers with learned weights, and the kernel sizes of the upsampling layers.
NETWORKS: dict[str, tuple[dict[str, str], dict[str, int]]] = {
    "fcn32s": ({**VGG, **FR}, {"upscore": 64}),
    "fcn16s": ({**VGG, **FR, **POOL4}, {"upscore2": 4, "upscore16": 32}),
    "fcn8s": ({**VGG, **FR, **POOL4, **POOL3}, {"upscore2": 4, "upscore_pool4": 4, "upscore8": 16}),
    "fcn8s_atonce": (
        {**VGG, **FR, **POOL4, **POOL3},
        {"upscore2": 4, "upscore_pool4": 4, "upscore8": 16},
    ),
    "fcn_alexnet": ({**CAFFENET, **FR}, {"upscore": 63}),
}
OPTIONS = {name: {"width": 1 / 16} if name == "fcn_alexnet" else WIDTH for name in NETWORKS}


# --- Writing files as Caffe does, with the field numbers of caffe.proto.


def net_parameter() -> Any:
    """The necessary part of caffe.proto's NetParameter, with lists declared as lists."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="test.proto", package="t", syntax="proto2")

    def message(name: str, *fields: tuple[str, int, str]) -> None:
        entry = file.message_type.add(name=name)
        for label, number, kind in fields:
            one = entry.field.add(name=label, number=number)
            repeated, packed, bare = "*" in kind, "packed" in kind, kind.split("*")[0]
            one.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            if packed:
                one.options.packed = True
            if hasattr(field, f"TYPE_{bare}"):
                one.type = getattr(field, f"TYPE_{bare}")
            else:
                one.type, one.type_name = field.TYPE_MESSAGE, f".t.{bare}"

    message("Shape", ("dim", 1, "INT64*packed"))
    message("Convolution", ("num_output", 1, "UINT32"))
    message(
        "Blob",
        *((name, number, "INT32") for number, name in enumerate(("n", "c", "h", "w"), start=1)),
        ("data", 5, "FLOAT*packed"),
        ("diff", 6, "FLOAT*packed"),
        ("shape", 7, "Shape"),
        ("double_data", 8, "DOUBLE*packed"),
        ("double_diff", 9, "DOUBLE*packed"),
    )
    message(
        "V1Layer",
        ("bottom", 2, "STRING*"),
        ("top", 3, "STRING*"),
        ("name", 4, "STRING"),
        ("type", 5, "INT32"),
        ("blobs", 6, "Blob*"),
        ("blobs_lr", 7, "FLOAT*"),
        ("convolution_param", 10, "Convolution"),
    )
    message(
        "Layer",
        ("name", 1, "STRING"),
        ("type", 2, "STRING"),
        ("bottom", 3, "STRING*"),
        ("top", 4, "STRING*"),
        ("blobs", 7, "Blob*"),
        ("phase", 10, "INT32"),
        ("convolution_param", 106, "Convolution"),
    )
    message(
        "Net",
        ("name", 1, "STRING"),
        ("layers", 2, "V1Layer*"),
        ("input", 3, "STRING*"),
        ("input_dim", 4, "INT32*"),
        ("layer", 100, "Layer*"),
    )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Net"))()


def write_caffemodel(
    path: Path,
    layers: Mapping[str, Blobs],
    *,
    old: bool = False,
    four_sizes: bool = False,
    double: bool = False,
    diff: bool = False,
) -> Path:
    """Write `layers`, and some layers without weights between them.

    Args:
        path: The file.
        layers: Blobs by the name of the layer.
        old: Use V1 layers.
        four_sizes: Store shapes as num, channels, height, width.
        double: Use double precision.
        diff: Store gradients, too.
    """
    net = net_parameter()
    net.name = "network"
    if old:
        net.input.append("data")
        net.input_dim.extend([1, 3, 500, 500])

    def add(name: str, kind: str) -> Any:
        layer = net.layers.add() if old else net.layer.add()
        layer.name, layer.type = name, 4 if old else kind
        layer.bottom.append("below")
        layer.top.append(name)
        return layer

    add("data", "Python")
    for name, blobs in layers.items():
        layer = add(name, "Convolution")
        layer.convolution_param.num_output = len(blobs[0])
        if old:
            layer.blobs_lr.extend([1, 2])
        for array in blobs:
            blob = layer.blobs.add()
            if four_sizes:
                blob.n, blob.c, blob.h, blob.w = (1,) * (4 - array.ndim) + array.shape
            else:
                blob.shape.dim.extend(array.shape)
            (blob.double_data if double else blob.data).extend(array.reshape(-1).tolist())
            if diff:
                (blob.double_diff if double else blob.diff).extend([0.5] * array.size)
        add(f"relu_{name}", "ReLU")
    path.write_bytes(net.SerializeToString())
    return path


def bilinear(channels: int, size: int) -> np.ndarray:
    """The kernel of the reference code's surgery.py."""
    factor = (size + 1) // 2
    center = factor - 1 if size % 2 == 1 else factor - 0.5
    line = 1 - abs(np.arange(size) - center) / factor
    kernel = np.zeros((channels, channels, size, size), dtype=np.float32)
    kernel[range(channels), range(channels)] = line[:, None] * line
    return kernel


def random_network(name: str, classes: int = 21, **options: Any) -> nn.Module:
    """A network in which all weights are random, for images of 0..255."""
    return randomize(create_model(name, num_classes=classes, **options))


def as_caffe(model: nn.Module, name: str, classes: int = 21) -> dict[str, Blobs]:
    """The layers of the authors' file for this network."""
    state = model.state_dict()
    learned, kernels = NETWORKS[name]
    layers: dict[str, Blobs] = {
        layer: [state[f"{ours}.{tensor}"].numpy() for tensor in ("weight", "bias")]
        for layer, ours in learned.items()
    }
    layers |= {layer: [bilinear(classes, size)] for layer, size in kernels.items()}
    if name == "fcn8s_atonce":
        for layer, name, scale in (("scale_pool4", "c4", 0.01), ("scale_pool3", "c3", 0.0001)):
            channels = model.backbone.channels[name]
            layers[layer] = [np.full(channels, scale, dtype=np.float32)]
    return layers


@pytest.fixture(scope="module")
def fcn8s_layers() -> dict[str, Blobs]:
    return as_caffe(random_network("fcn8s", **WIDTH), "fcn8s")


def random_image(height: int = 37, width: int = 61) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)


def reference_logits(model: nn.Module, rgb: np.ndarray, mean: tuple[float, float, float]) -> Tensor:
    """Logits with the input of the reference code's infer.py: BGR minus a mean."""
    bgr = rgb[:, :, ::-1].astype(np.float32) - np.array(mean, dtype=np.float32)
    with torch.no_grad():
        return model(torch.from_numpy(bgr.transpose(2, 0, 1).copy())[None])[0]


VOC_MEAN = (104.00699, 116.66877, 122.67892)


# --- The authors' networks


AS_OF_2014 = {"old": True, "four_sizes": True}
DOUBLE = {"double": True, "diff": True}


@pytest.mark.parametrize(
    ("name", "file_format"),
    [
        *((name, {}) for name in NETWORKS),
        ("fcn16s", AS_OF_2014),
        ("fcn8s_atonce", AS_OF_2014),
        ("fcn8s", DOUBLE),
    ],
)
def test_the_authors_networks_give_the_same_logits(
    tmp_path: Path, name: str, file_format: dict[str, bool]
) -> None:
    model = random_network(name, **OPTIONS[name])
    path = write_caffemodel(tmp_path / "net.caffemodel", as_caffe(model, name), **file_format)
    conversion = convert_weights(path, name, options=OPTIONS[name])
    conversion.bundle.save(tmp_path / "net.safetensors")
    predictor = Predictor.load(tmp_path / "net.safetensors", device="cpu")
    bundle = Bundle.load(tmp_path / "net.safetensors")
    assert predictor.classes == VOC_CLASSES
    assert bundle.normalization == CAFFE
    rgb = random_image()
    logits = torch.from_numpy(predictor.logits(rgb))
    assert logits.shape == (21, 37, 61)
    assert relative_difference(logits, reference_logits(model, rgb, VOC_MEAN)) < 1e-5
    state = model.state_dict()
    assert set(bundle.weights) == set(state)
    for key, tensor in bundle.weights.items():
        assert torch.equal(tensor, state[key]), key
    assert "upsampling" not in conversion.notes
    assert conversion.notes["not used"] == ""


def test_learned_kernels_are_kept(tmp_path: Path, fcn8s_layers: dict[str, Blobs]) -> None:
    model = random_network("fcn8s", upsampling="learned", **WIDTH)
    layers = as_caffe(model, "fcn8s")
    for layer, ours in (
        ("upscore2", "doubling.c4"),
        ("upscore_pool4", "doubling.c3"),
        ("upscore8", "upsampling"),
    ):
        layers[layer] = [model.state_dict()[f"head.{ours}.weight"].numpy()]
    path = write_caffemodel(tmp_path / "net.caffemodel", layers)
    conversion = convert_weights(path, "fcn8s", options=WIDTH)
    assert conversion.bundle.options == {**WIDTH, "upsampling": "learned"}
    assert "learned, because upscore2, upscore_pool4, upscore8" in conversion.notes["upsampling"]
    rgb = random_image()
    logits = reference_logits(conversion.bundle.build(), rgb, VOC_MEAN)
    assert relative_difference(logits, reference_logits(model, rgb, VOC_MEAN)) < 1e-6
    with pytest.raises(
        InputError, match=r"upscore8\.weight differs from the fixed values of fcn8s"
    ):
        convert_weights(path, "fcn8s", options={**WIDTH, "upsampling": "frozen"})
    bilinear_path = write_caffemodel(tmp_path / "bilinear.caffemodel", fcn8s_layers)
    for upsampling in ("learned", "interpolate"):  # both kinds can start from bilinear kernels
        options = {**WIDTH, "upsampling": upsampling}
        assert convert_weights(bilinear_path, "fcn8s", options=options).bundle.options == options


def test_fcn8s_at_once_needs_the_scales_it_was_trained_with(tmp_path: Path) -> None:
    path = tmp_path / "net.caffemodel"
    layers = as_caffe(random_network("fcn8s_atonce", **WIDTH), "fcn8s_atonce")
    with pytest.raises(InputError, match="has scale_pool4, scale_pool3, which fcn8s does not use"):
        convert_weights(write_caffemodel(path, layers), "fcn8s", options=WIDTH)
    other = {**layers, "scale_pool4": [layers["scale_pool4"][0] * 2]}
    with pytest.raises(InputError, match=r"scale_pool4\.weight differs"):
        convert_weights(write_caffemodel(path, other), "fcn8s_atonce", options=WIDTH)
    without = {key: blobs for key, blobs in layers.items() if not key.startswith("scale")}
    with pytest.raises(InputError, match="lacks scale_pool4, scale_pool3"):
        convert_weights(write_caffemodel(path, without), "fcn8s_atonce", options=WIDTH)


@pytest.mark.parametrize(
    ("classes", "mean"),
    [(2, VOC_MEAN), (33, (114.578, 115.294, 108.353)), (40, (116.190, 97.203, 92.318))],
)
def test_other_datasets_get_generated_names_and_their_own_mean(
    tmp_path: Path, classes: int, mean: tuple[float, float, float]
) -> None:
    model = random_network("fcn8s", classes, **WIDTH)
    layers = as_caffe(model, "fcn8s", classes)
    if classes == 33:  # two tasks: semantic and geometric classes
        layers = {
            f"{layer}_sem" if "score" in layer else layer: blobs for layer, blobs in layers.items()
        }
        layers["score_fr_geo"] = [np.zeros((3, 128, 1, 1)), np.zeros(3)]
        layers["upscore8_geo"] = [bilinear(3, 16)]
    path = write_caffemodel(tmp_path / "net.caffemodel", layers)
    conversion = convert_weights(path, "fcn8s", options=WIDTH)
    assert conversion.bundle.classes.names == tuple(f"class_{i}" for i in range(classes))
    assert f"class_0 to class_{classes - 1}" in conversion.notes["classes"]
    unused = {33: "score_fr_geo, upscore8_geo"}.get(classes, "")
    assert conversion.notes["not used"] == unused
    rgb = random_image()
    predictor = Predictor.from_model(
        conversion.bundle.build(), conversion.bundle.classes, conversion.bundle.normalization
    )
    assert (
        relative_difference(
            torch.from_numpy(predictor.logits(rgb)), reference_logits(model, rgb, mean)
        )
        < 1e-5
    )


# --- Classifiers, as initial weights for training


def test_caffe_vgg16_becomes_a_backbone_with_an_untrained_head(tmp_path: Path) -> None:
    model = random_network("fcn8s", **WIDTH)
    layers = {layer: blobs for layer, blobs in as_caffe(model, "fcn8s").items() if layer in VGG}
    for layer in ("fc6", "fc7"):  # inner products
        layers[layer][0] = layers[layer][0].reshape(128, -1)
    layers["fc8"] = [np.ones((1000, 128)), np.ones(1000)]
    path = write_caffemodel(tmp_path / "vgg.caffemodel", layers, old=True, four_sizes=True)
    conversion = convert_weights(path, "fcn8s", options=WIDTH)
    assert conversion.notes["not used"] == "fc8"
    assert "untrained" in conversion.notes["head"]
    assert "zero" in conversion.notes["head"]
    assert conversion.bundle.classes == VOC_CLASSES
    state = model.state_dict()
    for key, tensor in conversion.bundle.weights.items():
        expected = state[key] if key.startswith("backbone.") else torch.zeros_like(state[key])
        assert torch.equal(tensor, expected), key
    assert not conversion.bundle.build()(torch.randn(1, 3, 20, 30)).any()
    backbone = VGG16(width=NARROW)
    assert load_backbone(backbone, "vgg16", path) == CAFFE
    for key, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, state[f"backbone.{key}"]), key
    with pytest.raises(InputError, match="supported for vgg16, caffenet, not resnet18"):
        load_backbone(create_backbone("resnet18", output_stride=32), "resnet18", path)


def test_a_backbone_can_be_loaded_from_a_segmentation_network(tmp_path: Path) -> None:
    model = random_network("fcn_alexnet", width=1 / 16)
    path = write_caffemodel(tmp_path / "net.caffemodel", as_caffe(model, "fcn_alexnet"))
    convert_weights(path, "fcn_alexnet", options={"width": 1 / 16}).bundle.save(
        tmp_path / "a.safetensors"
    )
    for file in (path, tmp_path / "a.safetensors"):
        backbone = CaffeNet(width=1 / 16)
        assert load_backbone(backbone, "caffenet", file) == CAFFE
        for key, tensor in backbone.state_dict().items():
            assert torch.equal(tensor, model.state_dict()[f"backbone.{key}"]), key


def torchvision_classifier(backbone: nn.Module, name: str) -> dict[str, Tensor]:
    """Random weights in the shapes of torchvision's classifier with this backbone."""
    state = {
        key: torch.rand_like(tensor) if tensor.is_floating_point() else tensor
        for key, tensor in backbone.state_dict().items()
    }
    if name in {"vgg16", "alexnet"}:
        for key, tensor in state.items():
            if key.startswith("classifier.") and tensor.ndim == 4:
                state[key] = tensor.reshape(len(tensor), -1)
    last = {"vgg16": ["classifier.6"], "alexnet": ["classifier.6"]}.get(name, ["fc"])
    if name == "googlenet":
        last += ["aux1.conv.conv", "aux1.fc1", "aux1.fc2", "aux2.conv.bn", "aux2.fc2"]
    for layer in last:
        state |= {f"{layer}.weight": torch.rand(10, 4), f"{layer}.bias": torch.rand(10)}
    return state


@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("vgg16", lambda: VGG16(width=NARROW)),
        ("alexnet", lambda: AlexNet(width=1 / 16)),
        ("googlenet", GoogLeNet),
        ("resnet18", lambda: create_backbone("resnet18", output_stride=8)),
    ],
)
def test_torchvision_classifiers_fill_every_tensor_of_a_backbone(
    tmp_path: Path, name: str, build: Callable[[], nn.Module]
) -> None:
    state = torchvision_classifier(build(), name)
    torch.save(state, tmp_path / "w.pth")
    backbone = build()
    normalization = load_backbone(backbone, name, tmp_path / "w.pth")
    assert normalization == (GOOGLENET if name == "googlenet" else IMAGENET)
    for key, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, state[key].reshape(tensor.shape)), key
    torch.save({**state, "features.99.weight": torch.rand(2)}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=rf"has features\.99, which {name} does not use: "):
        load_backbone(backbone, name, tmp_path / "w.pth")


def test_torchvisions_alexnet_and_resnets_are_recognized(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(torchvision_classifier(AlexNet(width=1 / 16), "alexnet"), path)
    conversion = convert_weights(path, "fcn_alexnet", options={"width": 1 / 16})
    assert conversion.bundle.options == {"backbone": "alexnet", "width": 1 / 16}
    assert conversion.notes["not used"] == "classifier.6"
    assert conversion.bundle.normalization == IMAGENET
    backbone = create_backbone("resnet34", output_stride=32)
    torch.save(torchvision_classifier(backbone, "resnet34"), path)
    one, other = (convert_weights(path, "fcn_resnet") for _ in range(2))
    assert one.bundle.options["backbone"] == "resnet34"
    assert "random" in one.notes["head"]
    one.bundle.build()
    for key, tensor in one.bundle.weights.items():  # the random head is always the same
        assert torch.equal(tensor, other.bundle.weights[key]), key


# --- torchvision's networks


def as_torchvision(model: nn.Module) -> dict[str, Tensor]:
    names = {"backbone": "backbone", "head": "classifier", "auxiliary": "aux_classifier"}
    return {
        f"{names[key.split('.')[0]]}.{key.split('.', 1)[1]}": tensor
        for key, tensor in model.state_dict().items()
    }


@pytest.mark.parametrize("auxiliary", [True, False])
def test_torchvision_fcn_gives_the_same_logits(tmp_path: Path, auxiliary: bool) -> None:
    model = random_network("fcn_resnet_dilated", backbone="resnet18", auxiliary=auxiliary)
    torch.save(as_torchvision(model), tmp_path / "w.pth")
    conversion = convert_weights(tmp_path / "w.pth", "fcn_resnet_dilated")
    bundle = conversion.bundle
    assert bundle.options == {"backbone": "resnet18", "auxiliary": auxiliary}
    assert (bundle.classes, bundle.normalization) == (VOC_CLASSES, IMAGENET)
    assert conversion.notes["not used"] == ""
    state = model.state_dict()
    assert set(bundle.weights) == set(state)
    for key, tensor in bundle.weights.items():
        assert torch.equal(tensor, state[key]), key
    rgb = torch.from_numpy(random_image()).permute(2, 0, 1)[None]
    mean, std = (
        torch.tensor(x).view(1, 3, 1, 1) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    with torch.no_grad():
        expected = model((rgb / 255 - mean) / std)[0]
    predictor = Predictor.from_model(bundle.build(), bundle.classes, bundle.normalization)
    assert relative_difference(torch.from_numpy(predictor.logits(random_image())), expected) < 1e-4
    if auxiliary:
        smaller = convert_weights(
            tmp_path / "w.pth", "fcn_resnet_dilated", options={"auxiliary": False}
        )
        assert "aux_classifier.0" in smaller.notes["not used"]
        assert not any(key.startswith("auxiliary.") for key in smaller.bundle.weights)


@pytest.mark.parametrize("depth", [50, 101])
def test_torchvisions_published_fcns_are_recognized(tmp_path: Path, depth: int) -> None:
    with torch.device("meta"):
        model = create_model("fcn_resnet_dilated", num_classes=21, backbone=f"resnet{depth}")
    state = {  # the shapes of the published file, with one number in memory
        key: torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
        for key, tensor in as_torchvision(model).items()
    }
    assert state["backbone.layer4.2.conv3.weight"].shape == (2048, 512, 1, 1)
    assert state["classifier.0.weight"].shape == (512, 2048, 3, 3)
    assert state["aux_classifier.4.bias"].shape == (21,)
    torch.save(state, tmp_path / "w.pth")
    conversion = convert_weights(tmp_path / "w.pth", "fcn_resnet_dilated")
    assert conversion.bundle.options == {"backbone": f"resnet{depth}", "auxiliary": True}
    assert conversion.notes["weights"].startswith(f"{len(state)} tensors")


def test_files_without_step_counters_are_complete(tmp_path: Path) -> None:
    model = random_network("fcn_resnet_dilated", 3, backbone="resnet18")
    state = {k: v for k, v in as_torchvision(model).items() if "num_batches" not in k}
    torch.save(state, tmp_path / "w.pth")
    bundle = convert_weights(tmp_path / "w.pth", "fcn_resnet_dilated").bundle
    assert set(bundle.weights) == set(model.state_dict())
    bundle.build()


# --- The command


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def conversion_error(cli: Cli, folder: Path, *arguments: object) -> str:
    """Run `convert` and return its one-line error; nothing may be written."""
    before = contents(folder)
    result = cli("convert", *arguments)
    assert result.code == 2, result
    (line,) = result.err.splitlines()
    assert line.startswith("pixelwise: error: ")
    assert contents(folder) == before
    return str(line.removeprefix("pixelwise: error: "))


NET = ("net.caffemodel", "--model", "fcn8s", "--out", "b.safetensors", "--set", f"width={NARROW}")


def test_the_command_reports_its_assumptions_and_predict_accepts_its_bundle(
    tmp_path: Path, cli: Cli, fcn8s_layers: dict[str, Blobs], make_folder_data: MakeData
) -> None:
    write_caffemodel(tmp_path / "net.caffemodel", fcn8s_layers)
    result = cli("convert", *NET)
    assert (result.code, result.err) == (0, "")
    assert "the 21 of PASCAL VOC, assumed from their number" in result.out
    assert "BGR" in result.out
    assert result.out.splitlines()[-1] == "written to b.safetensors"
    assert Bundle.load(tmp_path / "b.safetensors").model == "fcn8s"
    make_folder_data(tmp_path / "data", count=1)
    result = cli("predict", "b.safetensors", "data/images", "--out", "masks")
    assert (result.code, result.err) == (0, "")


def test_classes_can_be_named(tmp_path: Path, cli: Cli, fcn8s_layers: dict[str, Blobs]) -> None:
    write_caffemodel(tmp_path / "net.caffemodel", fcn8s_layers)
    named = Classes.make([f"thing {i}" for i in range(21)])
    write_classes_toml(tmp_path / "mine.toml", named)
    assert cli("convert", *NET, "--classes", "mine.toml").code == 0
    assert Bundle.load(tmp_path / "b.safetensors").classes == named
    write_classes_toml(tmp_path / "mine.toml", Classes.make(["sky", "road"]))
    line = conversion_error(cli, tmp_path, *NET, "--classes", "mine.toml", "--overwrite")
    assert line.startswith("net.caffemodel: has 21 classes, but 2 are named")
    assert "absent.toml" in conversion_error(
        cli, tmp_path, *NET, "--classes", "absent.toml", "--overwrite"
    )


Layers = dict[str, Blobs]


def without_score_pool3(layers: Layers) -> None:
    del layers["score_pool3"]


def without_a_bias(layers: Layers) -> None:
    layers["conv3_2"].pop()


def with_another_layer(layers: Layers) -> None:
    layers["conv6_1"] = [np.zeros((2, 2, 3, 3)), np.zeros(2)]


def with_a_third_blob(layers: Layers) -> None:
    layers["conv1_2"].append(np.zeros(2))


def four_channels(layers: Layers) -> None:
    layers["conv1_1"][0] = np.zeros((2, 4, 3, 3))


def a_bias_too_long(layers: Layers) -> None:
    layers["fc7"][1] = np.zeros(129)


def a_kernel_of_another_size(layers: Layers) -> None:
    layers["upscore8"][0] = bilinear(21, 8)


def not_a_number(layers: Layers) -> None:
    layers["fc6"][0] = np.full_like(layers["fc6"][0], np.nan)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without_score_pool3, "lacks score_pool3, which fcn8s needs"),
        (without_a_bias, "lacks conv3_2.bias, which fcn8s needs"),
        (with_another_layer, "has conv6_1, which fcn8s does not use: "),
        (with_a_third_blob, "has conv1_2.blob2, which fcn8s does not use: "),
        (four_channels, "conv1_1.weight has shape (2, 4, 3, 3), but fcn8s needs (2, 3, 3, 3)"),
        (a_bias_too_long, "fc7.bias has shape (129,), but fcn8s needs (128,)"),
        (
            a_kernel_of_another_size,
            "upscore8.weight has shape (21, 21, 8, 8), but fcn8s needs (21, 21, 16, 16)",
        ),
        (not_a_number, "fc6 contains NaN or infinite values"),
    ],
)
def test_a_layer_that_does_not_fit_is_reported(
    tmp_path: Path,
    cli: Cli,
    fcn8s_layers: dict[str, Blobs],
    damage: Callable[[Layers], None],
    message: str,
) -> None:
    layers = {layer: list(blobs) for layer, blobs in fcn8s_layers.items()}
    damage(layers)
    write_caffemodel(tmp_path / "net.caffemodel", layers)
    assert conversion_error(cli, tmp_path, *NET).startswith(f"net.caffemodel: {message}")


def test_the_file_of_another_network_gives_one_line_per_kind_of_problem(
    tmp_path: Path, cli: Cli, fcn8s_layers: dict[str, Blobs]
) -> None:
    write_caffemodel(tmp_path / "net.caffemodel", fcn8s_layers)
    result = cli("convert", *NET, "--model", "fcn16s")
    assert result.code == 2
    missing, unexpected = result.err.splitlines()
    assert "lacks upscore16, which fcn16s needs" in missing
    assert "has score_pool3, upscore_pool4, upscore8, which fcn16s does not use" in unexpected


def test_a_truncated_file_is_rejected(
    tmp_path: Path, cli: Cli, fcn8s_layers: dict[str, Blobs]
) -> None:
    path = write_caffemodel(tmp_path / "net.caffemodel", fcn8s_layers)
    content = path.read_bytes()
    for keep in (5, len(content) // 10, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:keep])
        line = conversion_error(cli, tmp_path, *NET)
        assert line.startswith("net.caffemodel: is not a .caffemodel, or is cut off or damaged"), (
            keep
        )
    path.write_bytes(content[:9])  # only the name, which is a complete message
    assert "contains no weights" in conversion_error(cli, tmp_path, *NET)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def absent(path: Path) -> None:
    path.unlink(missing_ok=True)


def folder(path: Path) -> None:
    path.mkdir()


def png(path: Path) -> None:
    from PIL import Image

    Image.fromarray(random_image()).save(path, format="PNG")


def prototxt(path: Path) -> None:
    path.write_text('# FCN\nlayer {\n  name: "conv1_1"\n  type: "Convolution"\n}\n')


def web_page(path: Path) -> None:
    path.write_text("<!doctype html>\n<title>404</title>\n")


def bundle_itself(path: Path) -> None:
    save_file({"x": torch.zeros(3)}, path)


def pickle_cut_off(path: Path) -> None:
    torch.save({"x": torch.zeros(3000)}, path)
    path.write_bytes(path.read_bytes()[:5000])


def no_state_dict(path: Path) -> None:
    torch.save([torch.zeros(3)], path)


def code_in_a_pickle(path: Path) -> None:
    torch.save({"x": Path}, path)


def numbers_missing(path: Path) -> None:
    net = net_parameter()
    net.layer.add(name="conv1_1").blobs.add(data=[1.0] * 7).shape.dim.extend([2, 4])
    path.write_bytes(net.SerializeToString())


def negative_sizes(path: Path) -> None:
    net = net_parameter()
    net.layer.add(name="conv1_1").blobs.add(data=[1.0] * 8).shape.dim.extend([-2, -4])
    path.write_bytes(net.SerializeToString())


def twice(path: Path) -> None:
    net = net_parameter()
    for layers in (net.layer, net.layers):
        layers.add(name="conv1_1").blobs.add(data=[1.0]).shape.dim.append(1)
    path.write_bytes(net.SerializeToString())


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (empty, "is empty (0 bytes)"),
        (absent, "cannot be read (No such file or directory)"),
        (folder, "is a folder"),
        (png, "is not a file of weights in a known format"),
        (prototxt, "is a prototxt, which defines a network without its weights: give the .caffe"),
        (web_page, "is a text file and contains no weights"),
        (bundle_itself, "is a safetensors file"),
        (pickle_cut_off, "cannot be read as PyTorch weights"),
        (no_state_dict, "does not contain a state dict"),
        (code_in_a_pickle, "holds Python objects (pathlib.Path), which are not loaded"),
        (numbers_missing, "layer conv1_1: has 7 numbers for shape (2, 4)"),
        (negative_sizes, "layer conv1_1: has 8 numbers for shape (-2, -4)"),
        (twice, "has two layers named conv1_1"),
    ],
)
def test_files_without_weights_are_rejected(
    tmp_path: Path, cli: Cli, write: Callable[[Path], None], message: str
) -> None:
    write(tmp_path / "net.caffemodel")
    line = conversion_error(cli, tmp_path, *NET)
    assert line.startswith(f"net.caffemodel: {message}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "fcn4s"), "model 'fcn4s' is unknown (did you mean fcn8s or "),
        (
            ("--model", "deeplab_v3plus"),
            "net.caffemodel: FCN's Caffe weights are supported for fcn32s, ",
        ),
        (("--set", "depth=3"), "model 'fcn8s' has no option 'depth'"),
        (("--set", "upsampling=nearest"), "upsampling 'nearest': must be one of frozen"),
        (("--set", "width"), "'width': write KEY=VALUE"),
        (("--out", "absent/b.safetensors"), "absent/b.safetensors: cannot be written"),
        (("--out", "net.caffemodel"), "net.caffemodel: is the file to convert"),
        (("--out", "."), ".: is a folder"),
    ],
)
def test_an_invalid_option_is_rejected(
    tmp_path: Path,
    cli: Cli,
    fcn8s_layers: dict[str, Blobs],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    write_caffemodel(tmp_path / "net.caffemodel", fcn8s_layers)
    assert message in conversion_error(cli, tmp_path, *NET, *arguments)


def test_a_backbone_without_caffe_weights_is_rejected(tmp_path: Path, cli: Cli) -> None:
    layers = as_caffe(random_network("fcn_alexnet", width=1 / 16), "fcn_alexnet")
    write_caffemodel(tmp_path / "net.caffemodel", layers)
    line = conversion_error(
        cli, tmp_path, *NET, "--model", "fcn_alexnet", "--set", "backbone=alexnet"
    )
    assert "supported for vgg16, caffenet, not alexnet" in line


def test_missing_protobuf_is_reported_with_the_command_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fcn8s_layers: dict[str, Blobs]
) -> None:
    path = write_caffemodel(tmp_path / "net.caffemodel", fcn8s_layers)
    monkeypatch.setitem(sys.modules, "google.protobuf", None)
    with pytest.raises(InputError, match=r"needs protobuf: run `pip install 'protobuf>=6'`"):
        convert_weights(path, "fcn8s", options=WIDTH)


def test_commands_in_the_documentation_run(
    tmp_path: Path, cli: Cli, fcn8s_layers: dict[str, Blobs]
) -> None:
    text = NETWORKS_PAGE.read_text("utf-8")
    commands = [
        shlex.split(line) for line in re.findall(r"^pixelwise (convert .*fcn.*)$", text, re.M)
    ]
    assert len(commands) == 2
    for _, file, *options in commands:
        narrow = []
        if file.endswith(".caffemodel"):
            write_caffemodel(tmp_path / file, fcn8s_layers)
            narrow = ["--set", f"width={NARROW}"]
        else:
            model = random_network("fcn_resnet_dilated", backbone="resnet18")
            torch.save(as_torchvision(model), tmp_path / file)
        result = cli("convert", file, *options, *narrow)
        assert (result.code, result.err) == (0, "")
        assert (tmp_path / options[options.index("--out") + 1]).is_file()
