"""The built distributions: complete, and able to predict from an export without PyTorch."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pixelwise

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "pixelwise"

pytestmark = pytest.mark.slow


def run(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    variables = dict(os.environ)
    if command[0] != sys.executable:
        variables.pop("PYTHONPATH", None)  # it may lead to this checkout
    return subprocess.run(
        [*map(str, command)], cwd=cwd, capture_output=True, text=True, env=variables
    )


def checked(*command: object, cwd: Path) -> str:
    done = run(*command, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from it."""
    pytest.importorskip("build", reason="pip install build")
    folder = tmp_path_factory.mktemp("dist")
    checked(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (path,) = dist.glob("*.whl")
    return path


def package_files() -> set[str]:
    """All files of the package in this checkout, relative to src."""
    paths = (path for path in PACKAGE.rglob("*") if path.is_file())
    return {
        path.relative_to(PACKAGE.parent).as_posix()
        for path in paths
        if "__pycache__" not in path.parts
    }


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    expected = package_files()
    assert "pixelwise/py.typed" in expected
    for suffix in (".j2", ".toml"):
        assert any(name.endswith(suffix) for name in expected)
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert expected <= names
    assert {name for name in names if not name.startswith("pixelwise-")} == expected


def test_the_sdist_holds_the_package_and_its_tests(dist: Path) -> None:
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {f"src/{name}" for name in package_files()} <= names
    assert {"README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml"} <= names
    assert "tests/conftest.py" in names


def test_only_extras_require_pytorch(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = HeaderParser().parsestr(archive.read(name).decode())
    requirements = metadata.get_all("Requires-Dist") or []
    core = [line for line in requirements if "extra ==" not in line]
    assert any(line.startswith("numpy") for line in core)
    assert not any(line.startswith(("torch", "lightning", "numba", "scipy")) for line in core)
    assert {"train", "openvino", "onnx", "export", "all"} <= {*metadata.get_all("Provides-Extra")}
    assert metadata["License-Expression"] == "Apache-2.0"


def test_the_wheel_predicts_from_an_export_without_pytorch(
    tmp_path: Path, wheel: Path, tiny_bundle: Path
) -> None:
    pytest.importorskip("openvino")
    folder = pixelwise.export(tiny_bundle, out=tmp_path / "exported", quiet=True).folder
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    (tmp_path / "images").mkdir()
    Image.fromarray(image).save(tmp_path / "images" / "one.png")

    checked(sys.executable, "-m", "venv", "env", cwd=tmp_path)
    python = tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
    install = ("install", "--quiet", "--constraint", ROOT / "constraints.txt")
    checked(python, "-m", "pip", *install, f"{wheel}[openvino]", cwd=tmp_path)
    packages = checked(python, "-m", "pip", "list", "--format", "freeze", cwd=tmp_path)
    assert "torch==" not in packages
    assert "openvino==" in packages

    command = (python, "-m", "pixelwise")
    checked(*command, "predict", folder, "images", "--out", "masks", cwd=tmp_path)
    with Image.open(tmp_path / "masks" / "one.png") as mask:
        assert np.array_equal(np.asarray(mask), pixelwise.load(folder)(image).labels)
    code = (
        f"import pixelwise; print(pixelwise.load({str(folder)!r})('images/one.png').labels.shape)"
    )
    assert checked(python, "-c", code, cwd=tmp_path).strip() == "(60, 80)"

    refused = run(*command, "train", "images", "--out", "run", cwd=tmp_path)
    assert refused.returncode == 2
    assert refused.stderr == (
        "pixelwise: error: this needs PyTorch, which is not installed: "
        "run pip install '.[train]' in the clone of pixelwise\n"
    )
