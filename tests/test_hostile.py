"""Hundreds of damaged and hostile files: each is read or refused with a message, without harm.

tests/hostile.py generates them; tests/hostile_run.py runs the commands in processes with limited
memory. Times are CPU seconds, so that the load of the machine does not matter.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import hostile
from pixelwise.data.array_files import ARRAY_SUFFIXES
from pixelwise.data.image_files import IMAGE_SUFFIXES, MASK_SUFFIXES

HERE = Path(__file__).parent
SECONDS = 5.0
MEMORY = 3 << 30

if os.name != "posix":
    pytest.skip("memory limits and named pipes need POSIX", allow_module_level=True)


@dataclass
class Tree:
    """The generated files.

    Attributes:
        root: Folder of everything below.
        files: Folder of images, links and pipes.
        folders: Datasets by name.
    """

    root: Path
    files: Path
    folders: dict[str, Path]

    @property
    def canary(self) -> Path:
        """The file that a loaded pickle would create."""
        return self.root / "canary"

    def listing(self) -> set[str]:
        """All paths in `root`, without following links."""
        return {
            f"{folder}/{name}"
            for folder, folders, files in os.walk(self.root)
            for name in (*folders, *files)
        }


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    root = tmp_path_factory.mktemp("hostile")
    files = root / "files"
    files.mkdir()
    for name, data in hostile.images(root / "canary"):
        (files / name).write_bytes(data)
    for name in hostile.ODD_NAMES:
        hostile.write_named(files / name, b"not an image")
    hostile.links(files)
    return Tree(root, files, hostile.folders(root / "folders", root / "canary"))


def run(tmp_path: Path, jobs: list[Any], *, seconds: float = SECONDS) -> list[dict[str, Any]]:
    """Run jobs in a process with limited memory and check that each one ends as documented."""
    commands, results = tmp_path / "jobs.json", tmp_path / "results.json"
    commands.write_text(json.dumps(jobs))
    process = subprocess.run(
        [sys.executable, HERE / "hostile_run.py", commands, results],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert process.returncode == 0, process.stderr
    assert "Traceback" not in process.stderr  # libtiff writes warnings here
    found = json.loads(results.read_text())
    wrong = []
    for done in found["done"]:
        lines = done["err"].splitlines()
        prefix = "pixelwise: error: " if isinstance(done["job"], list) else ""
        if (
            done["traceback"]
            or done["code"] not in (0, 1, 2)
            or ((done["code"] == 2) != bool(lines) and isinstance(done["job"], dict))
            or not all(line.startswith(prefix) and line.isprintable() for line in lines if prefix)
            or done["seconds"] > seconds
            or len(done["err"]) > 100_000
        ):
            wrong.append({**done, "err": done["err"][:500]})
    assert wrong == []
    assert found["peak"] < MEMORY
    done_jobs: list[dict[str, Any]] = found["done"]
    return done_jobs


def test_hundreds_of_files_are_generated(tree: Tree) -> None:
    assert len(list(tree.files.iterdir())) + len(tree.folders) > 450


def test_each_file_is_decoded_or_refused(tree: Tree, tmp_path: Path) -> None:
    before = tree.listing()
    jobs = [
        {"path": str(path), "mask": mask}
        for path in sorted(tree.files.iterdir())
        for mask in (False, True)
    ]
    done = run(tmp_path, jobs)
    for each in done:  # each message starts with the file
        assert each["code"] == 0 or each["err"].startswith(each["job"]["path"])
    assert sum(each["code"] == 2 for each in done) > 600
    assert tree.listing() == before  # no pickle was run and no file was created


def test_each_folder_is_examined_and_converted(tree: Tree, tmp_path: Path) -> None:
    before = tree.listing()
    out = tmp_path / "out"
    out.mkdir()
    jobs = []
    for name, folder in tree.folders.items():
        jobs.append(["doctor", str(folder), "--json", str(out / f"{name}.json")])
        jobs.append(["convert-data", str(folder), str(out / name)])
    run(tmp_path, jobs)
    assert tree.listing() == before
    for path in out.rglob("*"):
        assert not path.is_symlink()
        if path.is_file():
            assert path.suffix in {".png", ".jpg", ".json", ".toml"}, path
            assert b"root:" not in path.read_bytes()


def make_dataset(tree: Tree, root: Path, kind: str) -> None:
    """Make a dataset with every regular file as an image or as a mask, paired with a valid file."""
    good = root.parent / "good"
    hostile.valid_pair(good, "a")
    other = {"images": "masks", "masks": "images"}[kind]
    for folder in (kind, other):
        (root / folder).mkdir(parents=True)
    suffixes = IMAGE_SUFFIXES if kind == "images" else MASK_SUFFIXES | ARRAY_SUFFIXES
    stems = Counter(path.stem for path in tree.files.iterdir())
    for path in tree.files.iterdir():
        if path.is_symlink() or not path.is_file() or path.suffix not in suffixes:
            continue
        stem = path.stem if stems[path.stem] == 1 else f"{path.stem}_{path.suffix[1:]}"
        (root / kind / f"{stem}{path.suffix}").symlink_to(path)
        (root / other / f"{stem}.png").symlink_to(good / other / "a.png")


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_a_dataset_of_all_files_is_refused(tree: Tree, tmp_path: Path, kind: str) -> None:
    data = tmp_path / "data"
    make_dataset(tree, data, kind)
    assert len(list((data / kind).iterdir())) > 300 - 100 * (kind == "masks")
    before = tree.listing()
    page = tmp_path / "page.html"
    jobs = [
        ["doctor", str(data), "--html", str(page), "--json", str(tmp_path / "found.json")],
        ["convert-data", str(data), str(tmp_path / "converted")],
    ]
    if kind == "images":  # convert-data checks the masks in the same way
        jobs.append(["train", str(data), "--out", str(tmp_path / "run")])
    done = run(tmp_path, jobs, seconds=30)  # for hundreds of files
    assert [each["code"] for each in done] == [1, 2, 2][: len(jobs)]
    assert "more problems like these" in done[1]["err"]  # all were opened
    assert json.loads((tmp_path / "found.json").read_text())["trains"] is False
    assert "<script" not in page.read_text(encoding="utf-8")
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "converted").exists()
    assert tree.listing() == before


def test_predict_handles_all_files(tree: Tree, tmp_path: Path, tiny_bundle: Path) -> None:
    before = tree.listing()
    masks = tmp_path / "masks"
    pipe = tree.files / "pipe.png"
    # Prediction of the image with 64 million pixels takes minutes; another test covers it.
    given = [str(path) for path in sorted(tree.files.iterdir()) if path.stem != "below_limit"]
    given = [path for path in given if Path(path).is_file()]
    jobs = [
        ["predict", str(tiny_bundle), "--out", str(masks), "--", *given],
        ["predict", str(tiny_bundle), str(pipe), "--out", str(masks)],
    ]
    codes = [done["code"] for done in run(tmp_path, jobs, seconds=30)]
    assert codes == [1, 2]
    assert tree.listing() == before
    assert {path.suffix for path in masks.iterdir()} == {".png"}
