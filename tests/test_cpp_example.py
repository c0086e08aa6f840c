"""examples/openvino: a C++ program that segments an image with an export."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from networks import write_varied_bundle
from pixelwise.data.classes import Classes
from pixelwise.data.scenes import generate_scene
from pixelwise.exporters import export

SOURCE = Path(__file__).parent.parent / "examples/openvino"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled program."""
    utils = pytest.importorskip("openvino.utils")
    config = Path(utils.get_cmake_path() or "")
    headers = config.parent / "include/openvino/openvino.hpp"
    if not headers.is_file() or not shutil.which("cmake") or not shutil.which("c++"):
        pytest.skip("needs cmake, a C++ compiler, and a package openvino with headers")
    build = tmp_path_factory.mktemp("build")
    for command in (
        ["cmake", "-S", SOURCE, "-B", build, f"-DOpenVINO_DIR={config}"],
        ["cmake", "--build", build],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return build / "segment"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The OpenVINO export of a network that predicts several classes."""
    path = tmp_path_factory.mktemp("export") / "net.safetensors"
    classes = Classes.make(["soil", "plant", "stone", "water"], ignore=255)
    return export(write_varied_bundle(path, classes)).path


def test_the_source_is_short() -> None:
    assert len((SOURCE / "segment.cpp").read_text("utf-8").splitlines()) <= 80


@pytest.mark.parametrize(("height", "width"), [(96, 128), (97, 131)])
def test_the_mask_equals_that_of_predict(
    height: int, width: int, program: Path, model: Path, tmp_path: Path, cli: Any
) -> None:
    image = Image.fromarray(generate_scene(3, height=height, width=width)[0])
    image.save(tmp_path / "scene.png")
    image.save(tmp_path / "scene.ppm")
    files = [model, tmp_path / "scene.ppm", tmp_path / "mask.pgm"]
    done = subprocess.run([program, *files], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert cli("predict", model.parent, "scene.png", "--out", "masks").code == 0
    with Image.open(tmp_path / "masks/scene.png") as mask, Image.open(files[2]) as own:
        assert own.format == "PPM"  # as Pillow calls all formats of this family
        assert own.size == (width, height)
        expected = np.asarray(mask)
        np.testing.assert_array_equal(np.asarray(own), expected)
    assert len(np.unique(expected)) > 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"P6\n# made by hand\n2 2\n255\n" + bytes(11), "is cut short"),
        (b"P3\n2 2\n255\n", "is not a binary PPM"),
        (b"P6\n2 2\n65535\n" + bytes(24), "is not a binary PPM"),
        (b"", "is not a binary PPM"),
    ],
)
def test_other_files_are_refused_in_one_line(
    content: bytes, message: str, program: Path, model: Path, tmp_path: Path
) -> None:
    image = tmp_path / "image.ppm"
    image.write_bytes(content)
    done = subprocess.run([program, model, image, tmp_path / "m.pgm"], capture_output=True)
    assert done.returncode == 2
    assert done.stderr.decode().startswith(f"segment: {image}: {message}")
    assert not (tmp_path / "m.pgm").exists()
