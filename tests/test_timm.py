"""Backbones of timm: maps, weights, training, export and prediction."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from fixture_types import Cli
from networks import randomize, write_bundle
from pixelwise.backbones import create_backbone
from pixelwise.backbones.timm_backbone import TimmBackbone, import_timm
from pixelwise.data.classes import Classes
from pixelwise.data.published.download import DownloadError
from pixelwise.data.scenes import write_scenes
from pixelwise.errors import InputError, MissingPackageError
from pixelwise.exporters import export
from pixelwise.inference import InferenceOptions, Predictor
from pixelwise.inference.runtimes import supports_tiling
from pixelwise.inference.runtimes.torch.torch_runtime import TorchRuntime
from pixelwise.models import create_model
from pixelwise.training import load_recipe, plan_training, train
from pixelwise.weights.bundle import Bundle
from pixelwise.weights.load_backbone import load_backbone
from pixelwise.weights.normalization import IMAGENET
from pixelwise.weights.published.fetch import describe_weights, provide_weights

try:
    timm = import_timm("the tests of timm")
except InputError as error:
    pytest.skip(str(error), allow_module_level=True)

# The smallest model of each kind; timm has the first three for tests.
CONVNEXT, RESNET_D, EFFICIENTNET = "test_convnext", "resnet18d", "test_efficientnet"
MOBILENET = "mobilenetv4_conv_small_035"
HEADS = ("fcn_resnet_dilated", "deeplab_v3plus")
CLASSES = Classes.make(["sky", "road", "car"], ignore=255)


# --- Maps


@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize("name", [CONVNEXT, "test_resnet", EFFICIENTNET, MOBILENET])
def test_maps_cover_images_of_any_size(name: str, stride: int) -> None:
    backbone = create_backbone(f"timm/{name}", output_stride=stride).eval()
    assert backbone.strides["c2"] == 4
    assert backbone.strides["c5"] == stride
    for height, width in ((33, 47), (64, 96), (1, 5)):
        with torch.no_grad():
            maps = backbone(torch.zeros(1, 3, height, width))
        assert {name: tuple(feature.shape[1:]) for name, feature in maps.items()} == {
            name: (channels, -(-height // step), -(-width // step))
            for (name, channels), step in zip(
                backbone.channels.items(), backbone.strides.values(), strict=True
            )
        }


@pytest.mark.parametrize("name", [CONVNEXT, "test_resnet", "tf_mobilenetv3_small_minimal_100"])
def test_the_maps_are_those_of_timm(name: str) -> None:
    backbone = randomize(create_backbone(f"timm/{name}", output_stride=16))
    theirs = timm.create_model(name, features_only=True, output_stride=16).eval()
    theirs.load_state_dict(backbone.model.state_dict())
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = backbone(image)
        for own, other in zip(ours.values(), theirs(image)[-len(ours) :], strict=True):
            torch.testing.assert_close(own, other)


def test_a_padded_image_has_the_maps_of_the_padded_size() -> None:
    backbone = randomize(create_backbone(f"timm/{CONVNEXT}", output_stride=32))
    image = torch.randn(1, 3, 33, 47, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        padded = backbone(nn.functional.pad(image, (0, 17, 0, 31)))
        for name, feature in backbone(image).items():
            height, width = feature.shape[2:]
            assert torch.equal(feature, padded[name][:, :, :height, :width])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("convnext_tny", {}, r"timm 1\.\S+ has no such model \(did you mean timm/convnext_tiny"),
        ("convnext_tiny.abc", {}, r"convnext_tiny has no weights 'abc': choose one of .*fb_in1k"),
        ("mixer_s32_224", {}, r"images of one size only.*the nearest that can be used is timm/\w+"),
        ("densenet121", {"output_stride": 16}, "its output stride is 32, not 16: the nearest"),
    ],
)
def test_a_model_that_cannot_be_used_is_refused(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught, torch.device("meta"):
        create_backbone(f"timm/{name}", **{"output_stride": 32, **options})
    nearest = str(caught.value).rpartition("used is ")[2]
    if nearest.startswith("timm/"):
        with torch.device("meta"):
            create_backbone(nearest, **{"output_stride": 32, **options})


def test_a_decoder_needs_a_map_at_stride_4() -> None:
    with pytest.raises(InputError, match=r"no map at stride 4, .*model\.options\.decoder=false"):
        create_model("deeplab_v3plus", num_classes=2, backbone="timm/test_vit")
    model = create_model("deeplab_v3plus", num_classes=2, backbone="timm/test_vit", decoder=False)
    assert model.eval()(torch.zeros(1, 3, 33, 50)).shape == (1, 2, 33, 50)


def test_missing_timm_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'pixelwise\[timm\]'"):
        create_backbone("timm/convnext_tiny", output_stride=16)


# --- Weights


def published(name: str, folder: Path, *, without: str = "") -> tuple[Path, nn.Module]:
    """A file as timm publishes it, and the classifier with its weights."""
    torch.manual_seed(1)
    model = randomize(timm.create_model(name))
    state = {key: t for key, t in model.state_dict().items() if not key.startswith(without or "-")}
    path = folder / "model.safetensors"
    save_file(state, path)
    return path, model


@pytest.mark.parametrize("name", [CONVNEXT, "test_resnet"])
def test_a_published_file_fills_the_backbone(name: str, tmp_path: Path) -> None:
    path, classifier = published(name, tmp_path)
    backbone = create_backbone(f"timm/{name}", output_stride=32)
    normalization = load_backbone(backbone, f"timm/{name}", path)
    assert normalization.mean == timm.get_pretrained_cfg(name).mean
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = classifier.forward_features(image)
        torch.testing.assert_close(backbone.eval()(image)["c5"], expected)
    four = create_backbone(f"timm/{name}", output_stride=32, in_channels=4)
    load_backbone(four, f"timm/{name}", path)
    first = next(four.model.parameters())
    torch.testing.assert_close(first[:, 3], first[:, :3].mean(dim=1))


def test_an_incomplete_or_other_file_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backbone = create_backbone("timm/test_resnet", output_stride=16)
    path, _ = published("test_resnet", tmp_path, without="layer2.0.bn1")
    with pytest.raises(InputError, match=r"lacks layer2\.0\.bn1\S+, .*is it for another network"):
        load_backbone(backbone, "timm/test_resnet", path)
    path, _ = published(CONVNEXT, tmp_path)
    with pytest.raises(InputError, match=r"model\.safetensors: .*is it for another network"):
        load_backbone(backbone, "timm/test_resnet", path)
    path.write_bytes(b"no weights")
    with pytest.raises(InputError, match=r"model\.safetensors: cannot be read"):
        load_backbone(backbone, "timm/test_resnet", path)
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


def test_timms_download_is_used_and_forbidden_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = published("test_resnet", tmp_path)
    asked: list[tuple[str, str, bool]] = []

    def download(repository: str, file: str, *, local_files_only: bool) -> str:
        asked.append((repository, file, local_files_only))
        if local_files_only:
            raise FileNotFoundError("not in the cache")
        return str(path)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with pytest.raises(DownloadError, match="PIXELWISE_OFFLINE forbids downloads") as caught:
        provide_weights("imagenet", "timm/test_resnet")
    assert "timm/test_resnet.r160_in1k/resolve/main/model.safetensors" in str(caught.value)
    assert "--weights FILE" in str(caught.value)
    monkeypatch.delenv("PIXELWISE_OFFLINE")
    assert provide_weights("imagenet", "timm/test_resnet") == path
    assert asked[-1] == ("timm/test_resnet.r160_in1k", "model.safetensors", False)
    assert "test_resnet.r160_in1k (license: apache-2.0)" in describe_weights(
        "imagenet", "timm/test_resnet"
    )
    assert "(license: cc-by-nc-4.0)" in describe_weights("imagenet", "timm/convnextv2_atto")


# --- Tiles


def test_only_networks_with_a_limited_receptive_field_support_tiles() -> None:
    for name, supported in ((MOBILENET, True), (EFFICIENTNET, False)):
        model = create_model("fcn_resnet_dilated", num_classes=2, backbone=f"timm/{name}")
        runtime = TorchRuntime(randomize(model), IMAGENET)
        assert supports_tiling(runtime) == supported, name


# --- From training to prediction


def check_from_training_to_prediction(
    name: str, head: str, folder: Path, *, targets: tuple[str, ...] = ("openvino", "onnx")
) -> None:
    data = write_scenes(folder / "data", train=2, val=1, height=64, width=96)
    settings = {
        "model.name": head,
        "model.options.backbone": f"timm/{name}",
        "model.options.output_stride": 16,
        "model.weights": "none",
        "epochs": 1,
        "batch_size": 2,
        "augmentation.crop": [64, 64],
        "memory_format": "contiguous",
        "device": "cpu",
    }
    run = train(data, folder / "run", load_recipe(None, settings))
    bundle = Bundle.load(run.last)
    assert isinstance(bundle.build().backbone, TimmBackbone)
    started = create_model(head, num_classes=1, backbone=f"timm/{name}", output_stride=16)
    assert any(
        not torch.equal(tensor, started.state_dict()[key])
        for key, tensor in bundle.weights.items()
        if key.startswith("backbone.")
    )
    image = np.asarray(Image.open(next((data / "images" / "val").iterdir())).convert("RGB"))
    masks = []
    for target in targets:
        checks = export(run.last, to=target).checks
        assert [parity["equal"] > 0.999 for parity in checks["parity"]] == [True] * 3
        options = InferenceOptions(target)
        masks.append(Predictor.from_options(run.last, options)(image).mask)
    expected = Predictor.from_options(run.last, InferenceOptions("torch"))(image).mask
    for mask in masks:
        assert (np.asarray(mask) == np.asarray(expected)).mean() > 0.999


def test_one_timm_backbone_from_training_to_prediction(tmp_path: Path) -> None:
    check_from_training_to_prediction(
        "test_resnet", "fcn_resnet_dilated", tmp_path, targets=("openvino",)
    )


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", [CONVNEXT, RESNET_D, EFFICIENTNET, MOBILENET])
def test_each_kind_of_timm_backbone_from_training_to_prediction(
    name: str, head: str, tmp_path: Path
) -> None:
    check_from_training_to_prediction(name, head, tmp_path)


@pytest.mark.parametrize(("name", "refused"), [("test_resnet", True), (CONVNEXT, False)])
def test_batch_normalization_of_timm_needs_a_single_process(
    name: str, refused: bool, tmp_path: Path
) -> None:
    data = write_scenes(tmp_path / "data", train=4, val=1, height=32, width=32)
    settings: dict[str, Any] = {
        "model.name": "fcn_resnet_dilated",
        "model.options.backbone": f"timm/{name}",
        "model.options.output_stride": 32,
        "model.weights": "none",
        "memory_format": "contiguous",
        "kernels": "plain",
        "device": "cpu",
        "batch_size": 4,
    }
    if refused:
        with pytest.raises(InputError, match=r"'timm/test_resnet': .*freeze_batch_norm=true"):
            plan_training(data, tmp_path / "run", load_recipe(None, settings), processes=2)
        settings["model.freeze_batch_norm"] = True
    plan_training(data, tmp_path / "run", load_recipe(None, settings), processes=2)


def test_a_bundle_starts_another_network_with_its_backbone(tmp_path: Path, cli: Cli) -> None:
    path = write_bundle(
        tmp_path / "start.safetensors",
        "deeplab_v3plus",
        CLASSES,
        backbone=f"timm/{CONVNEXT}",
        output_stride=16,
    )
    backbone = create_backbone(f"timm/{CONVNEXT}", output_stride=8)
    load_backbone(backbone, f"timm/{CONVNEXT}", path)
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, Bundle.load(path).weights[f"backbone.{name}"])
