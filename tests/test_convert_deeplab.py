"""Conversion of DeepLab's published weights: TensorFlow's, torchvision's and kazuto1011's.

They are compared with forward passes that use the publishers' names.
"""

from __future__ import annotations

import io
import re
import shlex
import tarfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fixture_types import Cli, MakeData
from pixelwise.backbones import create_backbone
from pixelwise.data.classes import Classes, write_classes_toml
from pixelwise.data.voc_palette import VOC_CLASSES
from pixelwise.errors import InputError
from pixelwise.models import create_model
from pixelwise.weights.convert_weights import convert_weights
from pixelwise.weights.importers.crc32c import crc32c, masked_crc32c
from pixelwise.weights.importers.tensorflow_checkpoint import read_tensorbundle
from pixelwise.weights.load_backbone import load_backbone
from pixelwise.weights.normalization import IMAGENET, TENSORFLOW
from test_convert import (
    NETWORKS_PAGE,
    conversion_error,
    random_image,
    random_network,
    relative_difference,
)

protobuf = pytest.importorskip("google.protobuf", reason="pip install 'protobuf>=6'")

Arrays = dict[str, np.ndarray]
Forward = Callable[[Mapping[str, Tensor], Tensor], Tensor]


# --- Writing checkpoints as TensorFlow does (leveldb's table_format.md, tensor_bundle.proto)


def crc_by_bytes(data: bytes) -> int:
    """Masked CRC-32C, computed byte by byte."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC_TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17 & 0xFFFFFFFF)) + 0xA282EAD8) & 0xFFFFFFFF


def crc_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


CRC_TABLE = crc_table()


def varint(number: int) -> bytes:
    parts = []
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def varint_field(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def bytes_field(number: int, value: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(value)) + value


TYPES = {"float32": 1, "float64": 2, "int32": 3, "int64": 9, "float16": 19}


def entry(array: np.ndarray, offset: int, crc: int, other: Mapping[str, int]) -> bytes:
    """A BundleEntryProto. Like TensorFlow, it leaves out zeros. `other` overrides its values."""
    shape = b"".join(bytes_field(2, varint_field(1, side)) for side in array.shape)
    kind = other.get("dtype", TYPES[str(array.dtype)])
    fields = {
        3: other.get("shard", 0),
        4: other.get("offset", offset),
        5: other.get("size", array.nbytes),
    }
    message = varint_field(1, kind) + bytes_field(2, shape)
    message += b"".join(varint_field(key, value) for key, value in fields.items() if value)
    message += varint(6 << 3 | 5) + crc.to_bytes(4, "little")
    return message + (bytes_field(7, b"") if "slices" in other else b"")


def table(items: Mapping[bytes, bytes], *, block_size: int = 600, compression: int = 0) -> bytes:
    """A LevelDB table. All keys but every fourth omit the prefix shared with the key before."""
    out = bytearray()

    def add_block(pairs: list[tuple[bytes, bytes]]) -> bytes:
        content, restarts, last = bytearray(), [], b""
        for number, (key, value) in enumerate(pairs):
            shared = 0
            if number % 4 == 0:
                restarts.append(len(content))
            else:
                while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                    shared += 1
            content += varint(shared) + varint(len(key) - shared) + varint(len(value))
            content += key[shared:] + value
            last = key
        for restart in restarts or [0]:
            content += restart.to_bytes(4, "little")
        content += len(restarts or [0]).to_bytes(4, "little")
        handle = varint(len(out)) + varint(len(content))
        typed = bytes(content) + bytes([compression])
        out.extend(typed + crc_by_bytes(typed).to_bytes(4, "little"))
        return handle

    index, pending = [], []
    for key, value in sorted(items.items()):
        pending.append((key, value))
        if sum(len(k) + len(v) for k, v in pending) > block_size:
            index.append((key, add_block(pending)))
            pending = []
    if pending:
        index.append((pending[-1][0], add_block(pending)))
    handles = add_block([]) + add_block(index)
    return bytes(out) + handles.ljust(40, b"\0") + 0xDB4775248B80FB57.to_bytes(8, "little")


def write_checkpoint(
    folder: Path,
    tensors: Arrays,
    *,
    name: str = "model.ckpt",
    crc: Callable[[bytes], int] = crc_by_bytes,
    odd: Mapping[str, Mapping[str, int]] | None = None,
    header: bytes = varint_field(1, 1) + bytes_field(3, varint_field(1, 1)),
    **form: int,
) -> Path:
    """Write NAME.index, whose path is returned, and NAME.data-00000-of-00001.

    Args:
        folder: The folder.
        tensors: Arrays by name.
        name: Prefix of the files.
        crc: Function for the checksums of the data.
        odd: Wrong values for the entries of tensors, by the names of the tensors.
        header: The header message.
        form: Arguments of `table`.
    """
    folder.mkdir(exist_ok=True)
    data, items = bytearray(), {b"": header}
    for key in sorted(tensors):
        content = tensors[key].tobytes()
        items[key.encode()] = entry(tensors[key], len(data), crc(content), (odd or {}).get(key, {}))
        data += content
    (folder / f"{name}.data-00000-of-00001").write_bytes(data)
    index = folder / f"{name}.index"
    index.write_bytes(table(items, **form))
    return index


# --- TensorFlow's networks, with its names


class TensorFlow:
    """DeepLab's graph (research/deeplab, research/slim/nets/mobilenet).

    Weights that are not in `tensors` are created when they are first used, so one forward pass
    without any creates all of them.
    """

    def __init__(self, tensors: Arrays | None = None, *, classes: int = 21) -> None:
        self.tensors: Arrays = {} if tensors is None else tensors
        self.classes = classes
        self.rng = np.random.default_rng(0)

    def get(self, name: str, make: Callable[[], np.ndarray]) -> Tensor:
        if name not in self.tensors:
            self.tensors[name] = make().astype(np.float32)
        return torch.from_numpy(self.tensors[name])

    def kernel(self, name: str, *shape: int) -> Tensor:
        """A kernel in PyTorch's layout."""
        fan = shape[0] * shape[1] * (1 if name.endswith("depthwise_weights") else shape[2])
        made = self.get(
            name, lambda: self.rng.standard_normal(shape, np.float32) * (2 / fan) ** 0.5
        )
        return made.permute((2, 3, 0, 1) if "depthwise_w" in name else (3, 2, 0, 1))

    def norm(self, x: Tensor, scope: str, eps: float) -> Tensor:
        count = x.shape[1]
        low, high = (0.1, 0.3) if "conv3_pointwise" in scope else (0.5, 1.2)  # keeps the sums small

        def get(name: str, low: float, high: float) -> Tensor:
            name = f"{scope}/BatchNorm/{name}"
            return self.get(name, lambda: self.rng.uniform(low, high, count)).view(1, -1, 1, 1)

        scale, shift = get("gamma", low, high), get("beta", -0.2, 0.3)
        mean, variance = get("moving_mean", -0.2, 0.2), get("moving_variance", 0.5, 1.5)
        return (x - mean) / (variance + eps).sqrt() * scale + shift

    def conv(
        self,
        x: Tensor,
        scope: str,
        channels: int,
        size: int = 1,
        *,
        stride: int = 1,
        rate: int = 1,
        eps: float = 1e-5,
        act: Callable[[Tensor], Tensor] | None = F.relu,
        fixed: bool = False,
    ) -> Tensor:
        kernel = self.kernel(f"{scope}/weights", size, size, x.shape[1], channels)
        x = F.conv2d(same(x, size, stride, rate, fixed), kernel, stride=stride, dilation=rate)
        x = self.norm(x, scope, eps)
        return act(x) if act else x

    def depthwise(
        self,
        x: Tensor,
        scope: str,
        *,
        stride: int = 1,
        rate: int = 1,
        eps: float = 1e-5,
        act: Callable[[Tensor], Tensor] | None = F.relu,
        fixed: bool = False,
    ) -> Tensor:
        kernel = self.kernel(f"{scope}/depthwise_weights", 3, 3, x.shape[1], 1)
        x = same(x, 3, stride, rate, fixed)
        x = F.conv2d(x, kernel, stride=stride, dilation=rate, groups=x.shape[1])
        x = self.norm(x, scope, eps)
        return act(x) if act else x

    def separable(
        self, x: Tensor, scope: str, channels: int, *, act: Any = F.relu, **options: Any
    ) -> Tensor:
        x = self.depthwise(x, f"{scope}_depthwise", act=act, **options)
        eps = options.get("eps", 1e-5)
        return self.conv(x, f"{scope}_pointwise", channels, eps=eps, act=act)

    def xception_65(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """c5 and the map for the decoder, at output stride 16."""
        name = "xception_65/{}/unit_{}/xception_module"
        x = self.conv(x, "xception_65/entry_flow/conv1_1", 32, 3, stride=2, eps=1e-3, fixed=True)
        x = self.conv(x, "xception_65/entry_flow/conv1_2", 64, 3, eps=1e-3)
        tap = x
        for block, depths, units, stride, rate in (
            ("entry_flow/block1", (128, 128, 128), 1, 2, 1),
            ("entry_flow/block2", (256, 256, 256), 1, 2, 1),
            ("entry_flow/block3", (728, 728, 728), 1, 2, 1),
            ("middle_flow/block1", (728, 728, 728), 16, 1, 1),
            ("exit_flow/block1", (728, 1024, 1024), 1, 1, 1),
            ("exit_flow/block2", (1536, 1536, 2048), 1, 1, 2),
        ):
            for unit in range(1, units + 1):
                scope, before = name.format(block, unit), x
                for number, depth in enumerate(depths, start=1):
                    inner = block == "exit_flow/block2"
                    x = self.separable(
                        x if inner else F.relu(x),
                        f"{scope}/separable_conv{number}",
                        depth,
                        stride=stride if number == 3 else 1,
                        rate=rate,
                        eps=1e-3,
                        act=F.relu if inner else None,
                        fixed=True,
                    )
                    if (block, number) == ("entry_flow/block2", 2):
                        tap = x
                if block == "middle_flow/block1":
                    x = x + before
                elif block != "exit_flow/block2":
                    x = x + self.conv(
                        before, f"{scope}/shortcut", depths[-1], stride=stride, eps=1e-3, act=None
                    )
        return x, tap

    def mobilenet_v2(self, x: Tensor, width: float) -> Tensor:
        def scaled(channels: int) -> int:
            return max(8, int(channels * width + 4) // 8 * 8)

        relu6: dict[str, Any] = {"eps": 1e-3, "act": F.relu6}
        x = self.conv(x, "MobilenetV2/Conv", scaled(32), 3, stride=2, **relu6)
        blocks = [(16, 1), (24, 2), (24, 1), (32, 2), (32, 1), (32, 1), (64, 2)]
        blocks += [(64, 1)] * 3 + [(96, 1)] * 3 + [(160, 1)] * 3 + [(320, 1)]
        for number, (channels, stride) in enumerate(blocks):
            scope = f"MobilenetV2/expanded_conv_{number}" if number else "MobilenetV2/expanded_conv"
            before, channels = x, scaled(channels)
            if number:
                x = self.conv(x, f"{scope}/expand", 6 * x.shape[1], **relu6)
            rate = 2 if number > 13 else 1
            x = self.depthwise(x, f"{scope}/depthwise", stride=stride, rate=rate, **relu6)
            x = self.conv(x, f"{scope}/project", channels, eps=1e-3, act=None)
            if stride == 1 and x.shape[1] == before.shape[1]:
                x = x + before
        return x

    def logits(
        self, rgb: np.ndarray, *, width: float | None = None, separable: bool = True
    ) -> Tensor:
        """Logits (classes, H, W) of an image (H, W, 3). `width` None selects Xception-65."""
        image = torch.from_numpy(rgb.astype(np.float32).transpose(2, 0, 1)[None])
        x = 2 / 255 * image - 1
        tap = None
        if width is None:
            x, tap = self.xception_65(x)
        else:
            x = self.mobilenet_v2(x, width)
        pooled = self.conv(x.mean(dim=(2, 3), keepdim=True), "image_pooling", 256)
        branches = [pooled.expand(-1, -1, *x.shape[2:]), self.conv(x, "aspp0", 256)]
        if tap is not None:
            for number, rate in enumerate((6, 12, 18), start=1):
                scope = f"aspp{number}"
                branches.append(
                    self.separable(x, scope, 256, rate=rate)
                    if separable
                    else self.conv(x, scope, 256, 3, rate=rate)
                )
        x = self.conv(torch.cat(branches, dim=1), "concat_projection", 256)
        if tap is not None:
            tap = self.conv(tap, "decoder/feature_projection0", 48)
            x = F.interpolate(x, size=tap.shape[2:], mode="bilinear", align_corners=True)
            x = torch.cat([x, tap], dim=1)
            for number in (0, 1):
                if separable:
                    x = self.separable(x, f"decoder/decoder_conv{number}", 256)
                else:
                    scope = f"decoder/decoder_conv0/decoder_conv0_{number + 1}"
                    x = self.conv(x, scope, 256, 3)
        kernel = self.kernel("logits/semantic/weights", 1, 1, 256, self.classes)
        bias = self.get("logits/semantic/biases", lambda: self.rng.normal(0, 0.5, self.classes))
        x = F.conv2d(x, kernel, bias)
        return F.interpolate(x, size=rgb.shape[:2], mode="bilinear", align_corners=True)[0]


def same(x: Tensor, size: int, stride: int, rate: int, fixed: bool) -> Tensor:
    """Pad like SAME, or by a fixed amount regardless of the size."""
    sides = []
    for side in (x.shape[3], x.shape[2]):
        total = rate * (size - 1)
        if not fixed:
            total = max(0, (-(-side // stride) - 1) * stride + total + 1 - side)
        sides += [total // 2, total - total // 2]
    return F.pad(x, sides)


WIDTH = 0.25
SLOTS = {"global_step": np.array(30000, dtype=np.int64)}


def mobilenet_arrays(classes: int = 21) -> Arrays:
    network = TensorFlow(classes=classes)
    network.logits(random_image(20, 20), width=WIDTH)
    return network.tensors


@pytest.fixture(scope="module")
def mobilenet() -> Arrays:
    return mobilenet_arrays()


@pytest.fixture(scope="module")
def checkpoint(mobilenet: Arrays, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The two files of `mobilenet`, by name."""
    index = write_checkpoint(tmp_path_factory.mktemp("tf"), mobilenet)
    return {path.name: path.read_bytes() for path in index.parent.iterdir()}


def write_files(folder: Path, files: Mapping[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder / "model.ckpt.index"


INDEX, DATA = "model.ckpt.index", "model.ckpt.data-00000-of-00001"
HEIGHT_WIDTH = [(47, 61), (48, 70)]  # odd; and even, for which SAME pads one side only


@pytest.mark.parametrize("size", HEIGHT_WIDTH)
def test_tensorflow_mobilenet_gives_the_same_logits(
    tmp_path: Path, mobilenet: Arrays, checkpoint: dict[str, bytes], size: tuple[int, int]
) -> None:
    conversion = convert_weights(write_files(tmp_path, checkpoint), "deeplab_v3plus")
    bundle = conversion.bundle
    assert bundle.options == {
        "backbone": "mobilenet_v2",
        "output_stride": 16,
        "align_corners": True,
        "tensorflow": True,
        "width": WIDTH,
        "decoder": False,
        "aspp": False,
    }
    assert (bundle.classes, bundle.normalization) == (VOC_CLASSES, TENSORFLOW)
    assert conversion.notes["weights"].startswith(f"{len(mobilenet)} tensors")
    assert conversion.notes["not used"] == ""
    rgb = random_image(*size)
    with torch.no_grad():
        images = bundle.normalization(torch.from_numpy(rgb).permute(2, 0, 1)[None])
        logits = bundle.build()(images)[0]
    expected = TensorFlow(mobilenet).logits(rgb, width=WIDTH)
    assert relative_difference(logits, expected) < 1e-5


@pytest.fixture(scope="module", params=[True, False], ids=["separable", "plain"])
def xception(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterable[tuple[Path, Arrays, bool]]:
    """A checkpoint, its tensors, and whether its head has separable convolutions."""
    network = TensorFlow()
    network.logits(random_image(20, 20), separable=request.param)
    folder = tmp_path_factory.mktemp("xception")
    slots = {**SLOTS, "aspp0/weights/Momentum": np.zeros(3, np.float32)}
    slots["logits/semantic/biases/Momentum"] = np.zeros(21, np.float32)
    # The bytewise checksum would take half a minute; another test shows that both are equal.
    yield (
        write_checkpoint(folder, {**network.tensors, **slots}, crc=masked_crc32c),
        network.tensors,
        request.param,
    )
    for path in folder.iterdir():
        path.unlink()


def test_tensorflow_xception_gives_the_same_logits(xception: tuple[Path, Arrays, bool]) -> None:
    path, tensors, separable = xception
    conversion = convert_weights(path, "deeplab_v3plus")
    bundle = conversion.bundle
    assert bundle.options == {
        "backbone": "xception65",
        "output_stride": 16,
        "align_corners": True,
        "decoder": True,
        "aspp": True,
        **({} if separable else {"separable": False}),
    }
    assert conversion.notes["weights"].startswith(f"{len(tensors)} tensors")
    assert conversion.notes["not used"] == "2 tensors Momentum, global_step"
    rgb = random_image(50, 71)
    with torch.no_grad():
        images = bundle.normalization(torch.from_numpy(rgb).permute(2, 0, 1)[None])
        logits = bundle.build()(images)[0]
    expected = TensorFlow(tensors).logits(rgb, separable=separable)
    assert relative_difference(logits, expected) < 1e-5
    if separable:  # as initial weights for training
        backbone = create_backbone("xception65", output_stride=16)
        assert load_backbone(backbone, "xception65", path) == TENSORFLOW
        for key, tensor in backbone.state_dict().items():
            if not key.endswith("num_batches_tracked"):
                assert torch.equal(tensor, bundle.weights[f"backbone.{key}"]), key


def test_a_tensorflow_imagenet_checkpoint_is_a_backbone(tmp_path: Path, mobilenet: Arrays) -> None:
    tensors = {name: array for name, array in mobilenet.items() if name.startswith("Mobilenet")}
    tensors["MobilenetV2/Conv_1/weights"] = np.zeros((1, 1, 80, 1280), np.float32)
    tensors["MobilenetV2/Logits/Conv2d_1c_1x1/biases"] = np.zeros(1001, np.float32)
    index = write_checkpoint(tmp_path, tensors)
    options = {"width": WIDTH, "tensorflow": True, "output_stride": 16}
    conversion = convert_weights(index, "deeplab_v3plus", options={"output_stride": 8})
    assert conversion.bundle.options["output_stride"] == 8
    assert "untrained" in conversion.notes["head"]
    assert conversion.notes["not used"] == ("MobilenetV2/Conv_1, MobilenetV2/Logits/Conv2d_1c_1x1")
    backbone = create_backbone("mobilenet_v2", **options)
    assert load_backbone(backbone, "mobilenet_v2", index) == TENSORFLOW
    for key, tensor in backbone.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(tensor, conversion.bundle.weights[f"backbone.{key}"]), key
    with pytest.raises(
        InputError, match="TensorFlow weights are supported for mobilenet_v2, not resnet18"
    ):
        load_backbone(create_backbone("resnet18", output_stride=16), "resnet18", index)


# --- The reader


def test_the_checksum_matches_the_standard() -> None:
    # The check value of CRC catalogs, and RFC 3720, appendix B.4.
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E


@given(st.integers(0, 3000), st.integers(0, 2**32 - 1))
def test_the_checksum_matches_the_bytewise_one_for_any_length(length: int, seed: int) -> None:
    data = np.random.default_rng(seed).bytes(length)
    assert masked_crc32c(data) == crc_by_bytes(data)


def test_every_type_and_shape_is_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tensors = {
        f"{kind}/{'x'.join(map(str, shape)) or 'scalar'}": (rng.random(shape) * 100).astype(kind)
        for kind in TYPES
        for shape in ((), (0,), (1,), (3, 4), (2, 1, 3, 5))
    }
    read = read_tensorbundle(write_checkpoint(tmp_path, tensors))
    assert set(read) == set(tensors)
    for name, array in tensors.items():
        assert read[name].numpy().dtype == array.dtype, name
        assert np.array_equal(read[name].numpy(), array), name


def archive(path: Path, files: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def test_a_checkpoint_can_be_given_by_each_of_its_paths(
    tmp_path: Path, mobilenet: Arrays, checkpoint: dict[str, bytes]
) -> None:
    write_files(tmp_path / "folder", checkpoint)
    packed = {f"./deeplab/{name}": content for name, content in checkpoint.items()}
    packed |= {f"./deeplab/._{INDEX}": b"of macOS", "./deeplab/frozen_inference_graph.pb": b"x"}
    archive(tmp_path / "packed.tar.gz", packed)
    archive(tmp_path / "outside.tgz", {f"../../{n}": content for n, content in checkpoint.items()})
    before = sorted(tmp_path.rglob("*"))
    for form in (
        f"folder/{INDEX}",
        f"folder/{DATA}",
        "folder/model.ckpt",
        "folder",
        "packed.tar.gz",
        "outside.tgz",
    ):
        read = read_tensorbundle(tmp_path / form)
        assert set(read) == set(mobilenet), form
        assert torch.equal(read["aspp0/weights"], torch.from_numpy(mobilenet["aspp0/weights"]))
    assert sorted(tmp_path.rglob("*")) == before
    assert not (tmp_path.parent / INDEX).exists()


@settings(max_examples=150)
@given(st.data())
def test_every_flipped_bit_is_detected(checkpoint: dict[str, bytes], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([INDEX, DATA]))
    content = bytearray(checkpoint[name])
    position = data.draw(st.integers(0, 8 * len(content) - 1))
    content[position // 8] ^= 1 << position % 8
    assert_refused({**checkpoint, name: bytes(content)})


def assert_refused(files: dict[str, bytes]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        index = write_files(Path(folder), files)
        with pytest.raises(InputError) as raised:
            read_tensorbundle(index)
        assert "\n" not in str(raised.value)


@settings(max_examples=60)
@given(st.data())
def test_every_truncation_is_detected(checkpoint: dict[str, bytes], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([INDEX, DATA]))
    keep = data.draw(st.integers(0, len(checkpoint[name]) - 1))
    assert_refused({**checkpoint, name: checkpoint[name][:keep]})


# --- torchvision


# torchvision's module names below "classifier", by our module names below "head".
TORCHVISION = {
    "context.branches.0.0": "0.convs.0.0",
    "context.branches.0.1": "0.convs.0.1",
    "context.branches.1.0": "0.convs.1.0",
    "context.branches.1.1": "0.convs.1.1",
    "context.branches.2.0": "0.convs.2.0",
    "context.branches.2.1": "0.convs.2.1",
    "context.branches.3.0": "0.convs.3.0",
    "context.branches.3.1": "0.convs.3.1",
    "context.branches.4.project.0": "0.convs.4.1",
    "context.branches.4.project.1": "0.convs.4.2",
    "context.project.0": "0.project.0",
    "context.project.1": "0.project.1",
    "refine.0": "1",
    "refine.1": "2",
    "classify": "4",
}
TORCHVISION_OPTIONS = {"output_stride": 8, "multi_grid": False, "dropout": 0.5, "refine": True}


def as_torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in state.items():
        top, _, rest = name.partition(".")
        module, _, last = rest.rpartition(".")
        if top == "head":
            renamed[f"classifier.{TORCHVISION[module]}.{last}"] = tensor
        else:
            renamed[name.replace("auxiliary.", "aux_classifier.")] = tensor
    return renamed


def torchvision_head(state: Mapping[str, Tensor], c5: Tensor, size: tuple[int, int]) -> Tensor:
    """torchvision's DeepLabHead, and the upsampling of _SimpleSegmentationModel."""

    def layer(x: Tensor, conv: str, norm: str, rate: int = 0) -> Tensor:
        x = F.conv2d(x, state[f"classifier.{conv}.weight"], padding=rate, dilation=max(1, rate))
        mean, variance, weight, bias = (
            state[f"classifier.{norm}.{part}"]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.relu(F.batch_norm(x, mean, variance, weight, bias))

    branches = [layer(c5, "0.convs.0.0", "0.convs.0.1")]
    for number, rate in enumerate((12, 24, 36), start=1):
        branches.append(layer(c5, f"0.convs.{number}.0", f"0.convs.{number}.1", rate))
    pooled = layer(F.adaptive_avg_pool2d(c5, 1), "0.convs.4.1", "0.convs.4.2")
    branches.append(F.interpolate(pooled, size=c5.shape[2:], mode="bilinear"))
    x = layer(torch.cat(branches, dim=1), "0.project.0", "0.project.1")
    x = layer(x, "1", "2", 1)
    x = F.conv2d(x, state["classifier.4.weight"], state["classifier.4.bias"])
    return F.interpolate(x, size=size, mode="bilinear")


@pytest.mark.parametrize("auxiliary", [True, False])
def test_torchvision_deeplab_gives_the_same_logits(tmp_path: Path, auxiliary: bool) -> None:
    small = {"backbone": "resnet18"}  # not published by torchvision, but without 40 M parameters
    model = random_network("deeplab_v3", **small, **TORCHVISION_OPTIONS, auxiliary=auxiliary)
    state = as_torchvision(model.state_dict())
    torch.save(state, tmp_path / "w.pth")
    conversion = convert_weights(tmp_path / "w.pth", "deeplab_v3", options=small)
    bundle = conversion.bundle
    assert bundle.options == {**small, **TORCHVISION_OPTIONS, "auxiliary": auxiliary}
    assert (bundle.classes, bundle.normalization) == (VOC_CLASSES, IMAGENET)
    assert conversion.notes["not used"] == ""
    assert set(bundle.weights) == set(model.state_dict())
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, bundle.weights[key]), key
    network, image = bundle.build(), torch.randn(1, 3, 57, 83)
    with torch.no_grad():
        expected = torchvision_head(state, network.backbone(image)["c5"], (57, 83))
        assert relative_difference(network(image), expected) < 1e-5
    if auxiliary:
        options = {**small, "auxiliary": False}
        smaller = convert_weights(tmp_path / "w.pth", "deeplab_v3", options=options)
        assert "aux_classifier.0" in smaller.notes["not used"]


@pytest.mark.parametrize(("depth", "auxiliary"), [(50, True), (101, True), (50, False)])
def test_torchvisions_published_deeplabs_are_recognized(
    tmp_path: Path, depth: int, auxiliary: bool
) -> None:
    with torch.device("meta"):
        model = create_model(
            "deeplab_v3",
            num_classes=21,
            backbone=f"resnet{depth}",
            auxiliary=auxiliary,
            **TORCHVISION_OPTIONS,
        )
    state = {  # the shapes of the published file, with one number in memory
        key: torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
        for key, tensor in as_torchvision(model.state_dict()).items()
    }
    assert state["classifier.0.convs.3.0.weight"].shape == (256, 2048, 3, 3)
    assert state["classifier.0.project.0.weight"].shape == (256, 1280, 1, 1)
    assert state["classifier.1.weight"].shape == (256, 256, 3, 3)
    if depth == 101:  # torchvision's num_params of DeepLabV3_ResNet101_Weights
        assert sum(p.numel() for p in model.parameters()) == 60_996_202
    torch.save(state, tmp_path / "w.pth")
    conversion = convert_weights(tmp_path / "w.pth", "deeplab_v3")
    options = {**TORCHVISION_OPTIONS, "backbone": f"resnet{depth}", "auxiliary": auxiliary}
    assert conversion.bundle.options == options
    assert conversion.notes["weights"].startswith(f"{len(state)} tensors")


# --- kazuto1011


class Kazuto:
    """DeepLab v2 as in kazuto1011's libs/models, with its names.

    Weights are created when they are first used.
    """

    def __init__(self, *, prefix: str, blocks: tuple[int, ...], classes: int = 21) -> None:
        self.prefix, self.blocks, self.classes = prefix, blocks, classes
        self.state: dict[str, Tensor] = {}
        self.generator = torch.Generator().manual_seed(0)

    def get(self, name: str, *shape: int, low: float = -0.1, high: float = 0.1) -> Tensor:
        name = self.prefix + name
        if name not in self.state:
            made = torch.empty(shape)
            if len(shape) == 4:
                made.normal_(0, (2 / made[0].numel()) ** 0.5, generator=self.generator)
            else:
                made.uniform_(low, high, generator=self.generator)
            self.state[name] = made
        return self.state[name]

    def layer(
        self, x: Tensor, name: str, channels: int, size: int = 1, *, stride: int = 1, rate: int = 1
    ) -> Tensor:
        weight = self.get(f"{name}.conv.weight", channels, x.shape[1], size, size)
        x = F.conv2d(x, weight, stride=stride, padding=size // 2 * rate, dilation=rate)
        mean = self.get(f"{name}.bn.running_mean", channels)
        variance = self.get(f"{name}.bn.running_var", channels, low=0.7, high=1.3)
        scale = self.get(f"{name}.bn.weight", channels, low=0.3, high=0.7)
        shift = self.get(f"{name}.bn.bias", channels)
        self.state.setdefault(f"{self.prefix}{name}.bn.num_batches_tracked", torch.tensor(0))
        return F.batch_norm(x, mean, variance, scale, shift, eps=1e-5)

    def single(self, x: Tensor) -> Tensor:
        x = F.relu(self.layer(x, "layer1.conv1", 64, 7, stride=2))
        x = F.max_pool2d(x, 3, 2, 1, ceil_mode=True)
        for stage, (stride, rate) in enumerate(((1, 1), (2, 1), (1, 2), (1, 4))):
            channels = 64 * 2**stage
            for block in range(1, self.blocks[stage] + 1):
                name = f"layer{stage + 2}.block{block}"
                step = stride if block == 1 else 1
                h = F.relu(self.layer(x, f"{name}.reduce", channels, stride=step))
                h = F.relu(self.layer(h, f"{name}.conv3x3", channels, 3, rate=rate))
                h = self.layer(h, f"{name}.increase", 4 * channels)
                if block == 1:
                    x = self.layer(x, f"{name}.shortcut", 4 * channels, stride=step)
                x = F.relu(h + x)
        scores = []
        for number, rate in enumerate((6, 12, 18, 24)):
            weight = self.get(f"aspp.c{number}.weight", self.classes, x.shape[1], 3, 3)
            bias = self.get(f"aspp.c{number}.bias", self.classes)
            scores.append(F.conv2d(x, weight, bias, padding=rate, dilation=rate))
        return torch.stack(scores).sum(dim=0)

    def logits(self, rgb: np.ndarray) -> Tensor:
        bgr = rgb[:, :, ::-1].astype(np.float32) - np.array([104.008, 116.669, 122.675], "f4")
        x = torch.from_numpy(bgr.transpose(2, 0, 1).copy())[None]
        fused = self.single(x)
        for scale in (0.5, 0.75) if self.prefix else ():
            h = F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)
            h = F.interpolate(self.single(h), size=fused.shape[2:], mode="bilinear")
            fused = torch.maximum(fused, h)
        return F.interpolate(fused, size=rgb.shape[:2], mode="bilinear")[0]


@pytest.mark.parametrize("prefix", ["base.", ""])
def test_kazuto1011_deeplab_v2_gives_the_same_logits(tmp_path: Path, prefix: str) -> None:
    published = Kazuto(prefix=prefix, blocks=(3, 4, 6, 3))
    rgb = random_image(56, 72)
    expected = published.logits(rgb)
    torch.save(published.state, tmp_path / "w.pth")
    conversion = convert_weights(tmp_path / "w.pth", "deeplab_v2")
    bundle = conversion.bundle
    assert bundle.options == {"backbone": "resnet50", "multi_scale": prefix == "base."}
    assert bundle.classes == VOC_CLASSES
    assert conversion.notes["not used"] == ""
    assert conversion.notes["weights"].startswith(f"{len(published.state)} tensors")
    with torch.no_grad():
        images = bundle.normalization(torch.from_numpy(rgb).permute(2, 0, 1)[None])
        logits = bundle.build()(images)[0]
    assert relative_difference(logits, expected) < 1e-5
    torch.save(
        {name: tensor for name, tensor in published.state.items() if "aspp" not in name},
        tmp_path / "coco.pth",
    )
    backbone = create_backbone("resnet50", output_stride=8, caffe=True)
    assert load_backbone(backbone, "resnet50", tmp_path / "coco.pth") == bundle.normalization
    for key, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, bundle.weights[f"backbone.{key}"]), key
    with pytest.raises(
        InputError, match="kazuto1011 weights are supported for resnet50, not resnet101"
    ):
        load_backbone(backbone, "resnet101", tmp_path / "coco.pth")
    assert "untrained" in convert_weights(tmp_path / "coco.pth", "deeplab_v2").notes["head"]


def test_kazuto1011s_published_networks_are_recognized(tmp_path: Path) -> None:
    published = Kazuto(prefix="base.", blocks=(3, 4, 23, 3), classes=182)
    with torch.device("meta"):
        published.generator = None  # type: ignore[assignment]
        published.single(torch.zeros(1, 3, 9, 9))
    state = {
        key: torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
        for key, tensor in published.state.items()
    }
    torch.save(state, tmp_path / "w.pth")
    conversion = convert_weights(tmp_path / "w.pth", "deeplab_v2")
    assert conversion.bundle.options == {"backbone": "resnet101", "multi_scale": True}
    assert len(conversion.bundle.classes) == 182
    assert "class_0 to class_181" in conversion.notes["classes"]
    blocks = {k: v for k, v in state.items() if "layer4.block20." not in k}
    torch.save(blocks, tmp_path / "w.pth")
    with pytest.raises(InputError, match="has 3, 4, 19, 3 blocks in its stages, which is no ResN"):
        convert_weights(tmp_path / "w.pth", "deeplab_v2")


# --- The command, and what it rejects


TF = (INDEX, "--model", "deeplab_v3plus", "--out", "b.safetensors")


def test_the_command_reports_its_assumptions(
    tmp_path: Path, cli: Cli, mobilenet: Arrays, make_folder_data: MakeData
) -> None:
    slots = {f"{name}/Momentum": array for name, array in mobilenet.items() if "moving" not in name}
    write_checkpoint(tmp_path, {**mobilenet, **slots, **SLOTS})
    result = cli("convert", *TF)
    assert (result.code, result.err) == (0, "")
    assert "the 21 of PASCAL VOC, assumed from their number" in result.out
    assert "minus (127.5, 127.5, 127.5), divided by (127.5, 127.5, 127.5)" in result.out
    assert re.search(rf"not used +│? *{len(slots)} tensors Momentum, global_step", result.out)
    make_folder_data(tmp_path / "data", count=1)
    result = cli("predict", "b.safetensors", "data/images", "--out", "masks")
    assert (result.code, result.err) == (0, "")


def test_other_classes_can_be_named(tmp_path: Path, cli: Cli) -> None:
    write_checkpoint(tmp_path, mobilenet_arrays(classes=19))
    result = cli("convert", *TF)
    assert "class_0 to class_18: the file has no names" in result.out
    write_classes_toml(tmp_path / "mine.toml", Classes.make([f"thing {i}" for i in range(19)]))
    assert "19, as given" in cli("convert", *TF, "--classes", "mine.toml", "--overwrite").out
    write_classes_toml(tmp_path / "mine.toml", Classes.make(["sky", "road"]))
    (tmp_path / "b.safetensors").unlink()
    line = conversion_error(cli, tmp_path, *TF, "--classes", "mine.toml")
    assert line.startswith(f"{INDEX}: has 19 classes, but 2 are named")


def without(name: str) -> Callable[[Arrays], None]:
    def damage(arrays: Arrays) -> None:
        del arrays[name]

    return damage


def with_(name: str, *shape: int) -> Callable[[Arrays], None]:
    return lambda arrays: arrays.update({name: np.zeros(shape, np.float32)})


def not_a_number(arrays: Arrays) -> None:
    arrays["aspp0/BatchNorm/beta"] = np.full(256, np.inf, np.float32)


def another_backbone(arrays: Arrays) -> None:
    for name in list(arrays):
        arrays[name.replace("MobilenetV2", "resnet_v1_101")] = arrays.pop(name)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without("aspp0/BatchNorm/gamma"), "lacks aspp0/BatchNorm/gamma, which deeplab_v3plus ne"),
        (without("MobilenetV2/Conv/weights"), "lacks MobilenetV2/Conv"),
        (
            without("MobilenetV2/expanded_conv_7/depthwise/depthwise_weights"),
            "lacks MobilenetV2/expanded_conv_7/depthwise",
        ),
        (without("logits/semantic/biases"), "lacks logits/semantic/biases"),
        (with_("aspp7/weights", 1, 1, 2, 2), "has aspp7, which deeplab_v3plus does not use: "),
        (with_("MobilenetV2/Conv_1/weights", 1, 1, 2, 2), "has MobilenetV2/Conv_1, which deepl"),
        (
            with_("aspp0/weights", 1, 1, 90, 256),
            "aspp0/weights has shape (256, 90, 1, 1), but deeplab_v3plus needs (256, 80, 1, 1)",
        ),
        (
            with_("MobilenetV2/expanded_conv_4/depthwise/depthwise_weights", 5, 5, 48, 1),
            "MobilenetV2/expanded_conv_4/depthwise/depthwise_weights has shape (48, 1, 5, 5), but ",
        ),
        (with_("logits/semantic/biases", 20), "logits/semantic/biases has shape (20,), but deepl"),
        (not_a_number, "aspp0 contains NaN or infinite values"),
        (
            another_backbone,
            "contains aspp0, concat_projection, image_pooling, logits, resnet_v1_101: a",
        ),
    ],
)
def test_a_tensor_that_does_not_fit_is_reported(
    tmp_path: Path, cli: Cli, mobilenet: Arrays, damage: Callable[[Arrays], None], message: str
) -> None:
    arrays = dict(mobilenet)
    damage(arrays)
    write_checkpoint(tmp_path, arrays)
    assert conversion_error(cli, tmp_path, *TF).startswith(f"{INDEX}: {message}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--model", "deeplab_v3"),
            f"{INDEX}: TensorFlow weights are supported for deeplab_v3plus",
        ),
        (("--model", "fcn8s"), f"{INDEX}: TensorFlow weights are supported for deeplab_v3plus, no"),
        (
            ("--set", "backbone=resnet101"),
            f"{INDEX}: TensorFlow weights are supported for mobilene",
        ),
        (("--set", "decoder=true"), f"{INDEX}: lacks decoder/feature_projection0, decoder/deco"),
        (("--set", "width=0.5"), f"{INDEX}: MobilenetV2/Conv/weights has shape (8, 3, 3, 3), bu"),
        (("--out", INDEX), f"{INDEX}: is the file to convert"),
        (("--out", DATA), f"{DATA}: is the file to convert"),
    ],
)
def test_an_invalid_option_is_rejected(
    tmp_path: Path, cli: Cli, checkpoint: dict[str, bytes], arguments: tuple[str, ...], message: str
) -> None:
    write_files(tmp_path, checkpoint)
    result = cli("convert", *TF, *arguments)
    assert result.code == 2
    assert result.err.startswith(f"pixelwise: error: {message}")
    assert {path.name for path in tmp_path.iterdir()} == set(checkpoint)
    assert (tmp_path / INDEX).read_bytes() == checkpoint[INDEX]


def damaged(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes())) and None


def flipped(position: int) -> Callable[[bytes], bytes]:
    def flip(content: bytes) -> bytes:
        changed = bytearray(content)
        changed[position] ^= 16
        return bytes(changed)

    return flip


def odd(**other: int) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        write_checkpoint(folder, {"a/weights": np.ones((2, 3), "f4")}, odd={"a/weights": other})

    return write


def compressed(folder: Path) -> None:
    write_checkpoint(folder, {"a/weights": np.ones((2, 3), "f4")}, compression=1)


def big_endian(folder: Path) -> None:
    header = varint_field(1, 1) + varint_field(2, 1)
    write_checkpoint(folder, {"a/weights": np.ones((2, 3), "f4")}, header=header)


def no_tensors(folder: Path) -> None:
    write_checkpoint(folder, {})


def no_header(folder: Path) -> None:
    write_checkpoint(folder, {"a/weights": np.ones((2, 3), "f4")}, header=b"")


def header_of_no_message(folder: Path) -> None:
    write_checkpoint(folder, {"a/weights": np.ones((2, 3), "f4")}, header=b"\xff\xff")


def of_objects(folder: Path) -> None:
    write_checkpoint(folder, {"_CHECKPOINTABLE_OBJECT_GRAPH": np.ones(3, "f4")})


def without_data(folder: Path) -> None:
    (folder / DATA).unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damaged(INDEX, lambda b: b""), f"{INDEX}: is empty (0 bytes)"),
        (damaged(INDEX, lambda b: b[:-1]), f"{INDEX}: is not the index of a TensorFlow checkpoint"),
        (damaged(INDEX, lambda b: b[:30]), f"{INDEX}: is not the index of a TensorFlow checkpoint"),
        (damaged(INDEX, flipped(-3)), f"{INDEX}: is not the index of a TensorFlow checkpoint, o"),
        (damaged(INDEX, lambda b: b[9:]), f"{INDEX}: a block of the index does not match its ch"),
        (damaged(INDEX, lambda b: b[:50] + b[-48:]), f"{INDEX}: the index is damaged"),
        (damaged(INDEX, flipped(100)), f"{INDEX}: a block of the index does not match its check"),
        (damaged(DATA, flipped(100)), f"{INDEX}: MobilenetV2/Conv/BatchNorm/moving_variance does"),
        (damaged(DATA, lambda b: b[:-7]), f"{INDEX}: logits/semantic/weights ends at byte "),
        (
            damaged(DATA, lambda b: b""),
            f"{INDEX}: MobilenetV2/Conv/BatchNorm/beta ends at byte 32,",
        ),
        (
            without_data,
            f"{DATA}: cannot be read (No such file or directory): put it next to {INDEX}",
        ),
        (compressed, f"{INDEX}: the index is compressed (type 1)"),
        (big_endian, f"{INDEX}: is in big-endian byte order"),
        (no_tensors, f"{INDEX}: contains no tensors"),
        (no_header, f"{INDEX}: contains no tensors"),
        (header_of_no_message, f"{INDEX}: the index is damaged"),
        (of_objects, f"{INDEX}: is an object-based TensorFlow 2 checkpoint"),
        (odd(slices=1), f"{INDEX}: a/weights is stored in slices"),
        (odd(dtype=7), f"{INDEX}: a/weights has type 7 of types.proto, which cannot be read"),
        (odd(size=20), f"{INDEX}: a/weights has 20 bytes for shape (2, 3)"),
        (odd(offset=1), f"{INDEX}: a/weights ends at byte 25, after the end of the data at 24"),
        (odd(shard=1), f"{INDEX}: the index is damaged"),
        (odd(dtype=3), f"{INDEX}: contains a: among TensorFlow's checkpoints, only DeepLab with x"),
    ],
)
def test_a_damaged_checkpoint_is_rejected(
    tmp_path: Path,
    cli: Cli,
    checkpoint: dict[str, bytes],
    damage: Callable[[Path], None],
    message: str,
) -> None:
    write_files(tmp_path, checkpoint)
    damage(tmp_path)
    assert conversion_error(cli, tmp_path, *TF).startswith(message)


def test_files_that_are_not_one_checkpoint_are_rejected(
    tmp_path: Path, cli: Cli, checkpoint: dict[str, bytes]
) -> None:
    def line(file: str) -> str:
        return conversion_error(cli, tmp_path, file, *TF[1:])

    write_files(tmp_path / "two", checkpoint)
    write_files(tmp_path / "two", {"other.index": b""})
    assert line("two") == f"two: contains 2 checkpoints: give one of {INDEX}, other.index"
    packed = {**checkpoint, "other.index": b""}
    archive(tmp_path / "two.tar.gz", packed)
    assert line("two.tar.gz").startswith("two.tar.gz: contains 2 checkpoints")
    archive(tmp_path / "none.tar.gz", {"frozen_inference_graph.pb": b"x"})
    assert line("none.tar.gz").startswith("none.tar.gz: contains no checkpoints")
    archive(tmp_path / "half.tar.gz", {f"d/{INDEX}": checkpoint[INDEX]})
    assert line("half.tar.gz").startswith(f"half.tar.gz: lacks d/{DATA}")
    content = archive(tmp_path / "cut.tar.gz", checkpoint).read_bytes()
    for keep in (0, 10, len(content) // 2, len(content) * 3 // 4):
        (tmp_path / "cut.tar.gz").write_bytes(content[:keep])
        assert line("cut.tar.gz").startswith("cut.tar.gz: is not an archive, or is cut off"), keep
    with tarfile.open(tmp_path / "link.tar.gz", "w:gz") as tar:
        member = tarfile.TarInfo(INDEX)
        member.type, member.linkname = tarfile.SYMTYPE, f"../two/{INDEX}"
        tar.addfile(member)
    assert line("link.tar.gz").startswith("link.tar.gz: contains no checkpoints")
    (tmp_path / "frozen_inference_graph.pb").write_bytes(b"\x0a\x05abc")
    assert "is a frozen TensorFlow graph: give the model.ckpt" in line("frozen_inference_graph.pb")
    assert line("absent.index").startswith("absent.index: cannot be read (No such file")
    assert line(DATA).startswith(f"{INDEX}: cannot be read (No such file")
    assert line("absent.tar.gz").startswith("absent.tar.gz: cannot be read (No such file")
    (tmp_path / "empty").mkdir()
    assert line("empty").startswith("empty: is a folder: give a .caffemodel, a .pth, or a Ten")


def test_missing_protobuf_is_reported_with_the_command_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: dict[str, bytes]
) -> None:
    import sys

    index = write_files(tmp_path, checkpoint)
    monkeypatch.setitem(sys.modules, "google.protobuf", None)
    with pytest.raises(
        InputError, match=r"reading TensorFlow files needs protobuf: run `pip install"
    ):
        read_tensorbundle(index)


@pytest.mark.parametrize(
    ("changed", "model", "message"),
    [
        ("base.layer3.block2.conv3x3.bn.bias", "deeplab_v2", "lacks base.layer3.block2.conv3x3.bn"),
        ("base.aspp.c4.weight", "deeplab_v2", "has base.aspp.c4, which deeplab_v2 does not use: "),
        ("", "deeplab_v3", "kazuto1011 weights are supported for deeplab_v2, not deeplab_v3"),
        ("", "fcn_resnet", "kazuto1011 weights are supported for deeplab_v2, not fcn_resnet"),
    ],
)
def test_kazuto1011_tensors_that_do_not_fit_are_reported(
    tmp_path: Path, cli: Cli, changed: str, model: str, message: str
) -> None:
    published = Kazuto(prefix="base.", blocks=(3, 4, 6, 3))
    with torch.device("meta"):
        published.generator = None  # type: ignore[assignment]
        published.single(torch.zeros(1, 3, 9, 9))
    state = {
        key: torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
        for key, tensor in published.state.items()
    }
    if changed:
        if changed in state:
            del state[changed]
        else:
            state[changed] = torch.zeros(3)
    torch.save(state, tmp_path / "w.pth")
    line = conversion_error(cli, tmp_path, "w.pth", "--model", model, "--out", "b.safetensors")
    assert line.startswith(f"w.pth: {message}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("classifier.0.convs.2.1.running_mean", None), "lacks classifier.0.convs.2.1.running_me"),
        (("classifier.0.convs.5.0.weight", (2, 2)), "has classifier.0.convs.5.0, which deeplab_v"),
        (
            ("classifier.0.project.0.weight", (256, 1024, 1, 1)),
            "classifier.0.project.0.weight has shape (256, 1024, 1, 1), but deeplab_v3 needs",
        ),
        (("aux_classifier.4.bias", None), "lacks aux_classifier.4.bias"),
    ],
)
def test_torchvision_tensors_that_do_not_fit_are_reported(
    tmp_path: Path, cli: Cli, change: tuple[str, tuple[int, ...] | None], message: str
) -> None:
    with torch.device("meta"):
        model = create_model(
            "deeplab_v3", num_classes=21, backbone="resnet50", auxiliary=True, **TORCHVISION_OPTIONS
        )
    state = {
        key: torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
        for key, tensor in as_torchvision(model.state_dict()).items()
    }
    name, shape = change
    if shape is None:
        del state[name]
    else:
        state[name] = torch.zeros(()).expand(shape)
    torch.save(state, tmp_path / "w.pth")
    line = conversion_error(
        cli, tmp_path, "w.pth", "--model", "deeplab_v3", "--out", "b.safetensors"
    )
    assert line.startswith(f"w.pth: {message}")


def test_commands_in_the_documentation_run(
    tmp_path: Path, cli: Cli, checkpoint: dict[str, bytes]
) -> None:
    text = NETWORKS_PAGE.read_text("utf-8")
    commands = [
        shlex.split(line) for line in re.findall(r"^pixelwise (convert \S*deeplab.*)$", text, re.M)
    ]
    assert len(commands) == 3
    for _, file, *options in commands:
        small = []
        model = options[options.index("--model") + 1]
        if model == "deeplab_v3plus":
            archive(tmp_path / file, {f"deeplab/{n}": content for n, content in checkpoint.items()})
        elif model == "deeplab_v2":
            published = Kazuto(prefix="base.", blocks=(3, 4, 6, 3))
            published.logits(random_image(8, 8))
            torch.save(published.state, tmp_path / file)
        else:
            small = ["--set", "backbone=resnet18"]
            network = random_network(
                model, backbone="resnet18", auxiliary=True, **TORCHVISION_OPTIONS
            )
            torch.save(as_torchvision(network.state_dict()), tmp_path / file)
        result = cli("convert", file, *options, *small)
        assert (result.code, result.err) == (0, "")
        assert (tmp_path / options[options.index("--out") + 1]).is_file()
