"""Fixtures of many tests: a small dataset on disk, a bundle, and the command line."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from pixelwise.data.classes import Classes, write_classes_toml

# Set before PyTorch and pixelwise.cli are imported: use few threads, and do not wrap lines.
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ["COLUMNS"] = "200"
os.environ["PIXELWISE_OFFLINE"] = "1"  # tests of downloads serve their own files
for forcing_color in ("FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE"):
    os.environ.pop(forcing_color, None)

settings.register_profile("pixelwise", deadline=None, max_examples=50)
settings.load_profile("pixelwise")

CLASSES = Classes.make(["sky", "road", "car"], ignore=255)


@dataclass(frozen=True)
class Result:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def make_folder_data() -> Callable[..., Path]:
    """Return `_write_folder_data`, which writes images and masks in the plain layout."""
    return _write_folder_data


def _write_folder_data(
    root: Path,
    *,
    count: int = 4,
    splits: Mapping[str, int] | None = None,
    size: tuple[int, int] = (24, 32),
    values: tuple[int, ...] = (0, 1, 2),
    classes: Classes | None = CLASSES,
    seed: int = 0,
) -> Path:
    """Write random images/NAME.png and masks/NAME.png below `root`, and return `root`.

    Args:
        root: The folder.
        count: Number of images, if there are no splits.
        splits: Number of images by split. Each split gets its own folders and file names.
        size: (height, width) of the images.
        values: Values of the masks. Each mask contains all of them.
        classes: Class table for classes.toml, or None to write no file.
        seed: Random seed.
    """
    rng = np.random.default_rng(seed)
    for split, images_in_split in (splits or {"": count}).items():
        images, masks = root / "images" / split, root / "masks" / split
        images.mkdir(parents=True, exist_ok=True)
        masks.mkdir(parents=True, exist_ok=True)
        for i in range(images_in_split):
            mask = rng.choice(np.array(values, dtype=np.uint8), size)
            mask.reshape(-1)[: len(values)] = values
            image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            name = f"{split}_{i:03d}.png" if split else f"{i:03d}.png"
            Image.fromarray(image).save(images / name)
            Image.fromarray(mask).save(masks / name)
    if classes is not None:
        write_classes_toml(root / "classes.toml", classes)
    return root


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the tiny backbone with random weights, for CLASSES. Tests must not modify it."""
    from networks import write_varied_bundle

    return write_varied_bundle(tmp_path_factory.mktemp("bundle") / "tiny.safetensors", CLASSES)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with an OpenVINO export and an ONNX export next to it. Tests must not modify it."""
    from networks import EXPORTED_CLASSES, write_varied_bundle
    from pixelwise.exporters import export

    path = tmp_path_factory.mktemp("exports") / "net.safetensors"
    write_varied_bundle(path, EXPORTED_CLASSES)
    for target in ("openvino", "onnx"):
        export(path, to=target)
    return path


@pytest.fixture
def run_cli(tmp_path: Path) -> Callable[..., Result]:
    """Run a command, as in `run_cli("predict", bundle, ...)`, in a new process in `tmp_path`."""

    def run(*arguments: object) -> Result:
        done = subprocess.run(
            [sys.executable, "-m", "pixelwise", *map(str, arguments)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def cli(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Result]:
    """Like `run_cli`, but in this process: imports take no time, and warnings are errors."""

    def run(*arguments: object) -> Result:
        from pixelwise.cli import main

        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["pixelwise", *map(str, arguments)])
        # The allocator of pytest's process stays as it is.
        monkeypatch.setattr("pixelwise.process_settings.tune_allocator", lambda: None)
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit_info:
            main()
        out, err = capfd.readouterr()
        code = exit_info.value.code
        assert isinstance(code, int)
        return Result(code, out, err)

    return run


@pytest.fixture(scope="session")
def processes() -> Iterator[Any]:
    """A context that starts processes with PyTorch loaded, before any computation."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["killed_run", "distributed_run"])
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), before])
    yield context
    os.environ["PYTHONPATH"] = before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a 3 MB file system."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], capture_output=True
    )
    if done.returncode:
        pytest.skip("mounting a 3 MB file system needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)
