"""TFLite exports: written with litert-torch, and executed with LiteRT.

Writing them is tested where litert-torch is installed here, or in the environment whose python the
variable PIXELWISE_LITERT_PYTHON names.
"""

from __future__ import annotations

import os
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pixelwise
from networks import EXPORTED_CLASSES, randomize
from pixelwise.data.scenes import generate_scene
from pixelwise.errors import InputError, PixelwiseError
from pixelwise.exporters import tflite_format
from pixelwise.exporters.formats import CONVERTER_VARIABLE
from pixelwise.models import create_model
from pixelwise.weights.bundle import Bundle
from pixelwise.weights.normalization import IMAGENET

converts = pytest.mark.skipif(
    find_spec("litert_torch") is None and CONVERTER_VARIABLE not in os.environ,
    reason="needs litert-torch (extra `tflite`)",
)


def bundle(path: Path, backbone: str) -> Path:
    """A network with random weights that predicts several classes."""
    options = {"backbone": backbone}
    network = randomize(create_model("deeplab_v3plus", num_classes=3, **options))
    image = torch.from_numpy(photo(97, 131)).permute(2, 0, 1)[None]
    with torch.no_grad():  # so that no class wins everywhere
        network.head.classify.bias -= network(IMAGENET(image)).mean(dim=(0, 2, 3))
    Bundle("deeplab_v3plus", options, EXPORTED_CLASSES, IMAGENET, network.state_dict()).save(path)
    return path


def photo(height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return generate_scene(5, height=height, width=width)[0]


@converts
@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["tiny", "mobilenet_v2", "efficientnet_lite0"])
def test_an_export_predicts_what_the_bundle_predicts(
    backbone: str, tmp_path: Path, cli: Any
) -> None:
    pytest.importorskip("ai_edge_litert")
    path = bundle(tmp_path / "net.safetensors", backbone)
    done = cli("export", path, "--to", "tflite", "--size", "97x131")
    assert done.code == 0, done.err
    assert "at 97x131" in done.out
    folder = tmp_path / "net-tflite"
    assert sorted(file.name for file in folder.iterdir()) == ["export.json", "model.tflite"]
    reference, predictor = pixelwise.load(path, runtime="torch"), pixelwise.load(folder)
    image = photo(97, 131)
    expected = reference.network.logits(image)
    logits = predictor.network.logits(image)
    assert np.abs(logits - expected).max() <= 1e-4 * (expected.max() - expected.min())
    labels = predictor.network.predict_labels(image)
    np.testing.assert_array_equal(labels, logits.argmax(axis=0))
    assert len(np.unique(labels)) > 1
    with ThreadPoolExecutor(4) as pool:
        for other in pool.map(predictor.network.predict_labels, [image] * 8):
            np.testing.assert_array_equal(other, labels)
    copied = pickle.loads(pickle.dumps(predictor))
    np.testing.assert_array_equal(copied.network.predict_labels(image), labels)
    for runtime in ("tflite", "torch"):
        Image.fromarray(image).save(tmp_path / "a.png")
        done = cli("predict", path, "a.png", "--runtime", runtime, "--out", runtime)
        assert done.code == 0, done.err
    masks = [np.asarray(Image.open(tmp_path / name / "a.png")) for name in ("tflite", "torch")]
    assert (masks[0] == masks[1]).mean() > 0.9999
    Image.fromarray(photo(96, 131)).save(tmp_path / "b.png")
    done = cli("predict", folder, "b.png", "--out", "other")
    assert done.code == 2
    assert "takes images of 97x131 pixels, not 96x131: resize the image, or export" in done.err
    assert pixelwise.load(path).runtime.name != "tflite"  # auto


def test_requests_that_make_no_sense_are_refused(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Any
) -> None:
    monkeypatch.delenv(CONVERTER_VARIABLE, raising=False)
    if find_spec("litert_torch") is None:
        done = cli("export", tiny_bundle, "--to", "tflite", "--size", "64x96")
        assert done.code == 2
        assert done.err == (
            "pixelwise: error: export to tflite: needs litert-torch, not installed: `pip install "
            "'pixelwise[tflite]'`, or set PIXELWISE_LITERT_PYTHON to the python of an environment "
            "that has it\n"
        )
    monkeypatch.setenv(CONVERTER_VARIABLE, sys.executable)
    for words, message in (
        (("--to", "onnx", "--size", "64x96"), "--size: onnx takes images of any size"),
        (("--to", "tflite", "--size", "16x96"), "--size 16x96: both sides must be at least 32"),
        (("--to", "tflite", "--size", "big"), "--size big: allowed are HEIGHTxWIDTH"),
        (("--to", "tflite"), "the bundle has no training crop: give their size with --size"),
        (("--to", "tflite", "--int8", "--data", "x"), "int8: is not available for tflite"),
    ):
        done = cli("export", tiny_bundle, *words, "--out", "net")
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert message in done.err
    assert not (tmp_path / "net").exists()


def test_a_converter_that_fails_leaves_nothing(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ai_edge_litert")
    failing = tmp_path / "python"
    failing.write_text("#!/bin/sh\necho many lines >&2\necho it does not work >&2\nexit 3\n")
    failing.chmod(0o755)
    out = tmp_path / "net"
    for python, message in (
        (failing, r"python: cannot convert the network \(it does not work\)"),
        (tmp_path / "missing", "missing: cannot be started"),
    ):
        monkeypatch.setenv(CONVERTER_VARIABLE, str(python))
        with pytest.raises(PixelwiseError, match=message):
            pixelwise.export(tiny_bundle, to="tflite", size=(64, 96), out=out, quiet=True)
        assert not out.exists()


def test_a_damaged_model_is_refused_in_one_line(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ai_edge_litert")

    def write(self: object, program: object, folder: Path) -> str:
        (folder / "model.tflite").write_bytes(b"no model")
        return "model.tflite"

    monkeypatch.setenv(CONVERTER_VARIABLE, sys.executable)
    monkeypatch.setattr(tflite_format.TFLiteFormat, "write", write)
    with pytest.raises(InputError, match=r"model\.tflite: LiteRT cannot read it") as error:
        pixelwise.export(tiny_bundle, to="tflite", size=(64, 96), out=tmp_path / "o", quiet=True)
    assert len(error.value.problems) == 1
    assert not (tmp_path / "o").exists()
