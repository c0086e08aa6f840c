"""Hundreds of broken and hostile files: each is read or refused in lines, and nothing else happens.

They are made by tests/hostile.py and given to the commands in processes with a limit on memory
(tests/hostile_run.py). Seconds are of the processor, so that a busy machine changes nothing.
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
    pytest.skip("limits on memory and named pipes are POSIX", allow_module_level=True)


@dataclass
class Tree:
    """files: images, links and pipes, in one folder. folders: data sets, by name."""

    root: Path
    files: Path
    folders: dict[str, Path]

    @property
    def canary(self) -> Path:
        return self.root / "canary"

    def listing(self) -> set[str]:
        """Everything that lies in it; links are not followed."""
        return {
            f"{place}/{name}"
            for place, folders, files in os.walk(self.root)
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
    """Give jobs to a process with little memory; every one has to end as a command may end."""
    commands, results = tmp_path / "jobs.json", tmp_path / "results.json"
    commands.write_text(json.dumps(jobs))
    ended = subprocess.run(
        [sys.executable, HERE / "hostile_run.py", commands, results],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr  # where libtiff writes, which nobody can silence
    found = json.loads(results.read_text())
    wrong = []
    for done in found["done"]:
        lines = done["err"].splitlines()
        prefix = "pixelwise: error: " if isinstance(done["job"], list) else ""
        if (
            done["trouble"]
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


def test_there_are_hundreds_of_them(tree: Tree) -> None:
    assert len(list(tree.files.iterdir())) + len(tree.folders) > 450


def test_each_file_is_read_or_refused(tree: Tree, tmp_path: Path) -> None:
    before = tree.listing()
    jobs = [
        {"path": str(path), "mask": mask}
        for path in sorted(tree.files.iterdir())
        for mask in (False, True)
    ]
    done = run(tmp_path, jobs)
    for each in done:  # a line begins with the file that it is about
        assert each["code"] == 0 or each["err"].startswith(each["job"]["path"])
    assert sum(each["code"] == 2 for each in done) > 600
    assert tree.listing() == before  # no pickle was run, nothing was left


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


def as_data(tree: Tree, root: Path, part: str) -> None:
    """Every regular file as an image, or as a mask, of one data set whose other half is good."""
    good = root.parent / "good"
    hostile.good_pair(good, "a")
    other = {"images": "masks", "masks": "images"}[part]
    for folder in (part, other):
        (root / folder).mkdir(parents=True)
    suffixes = IMAGE_SUFFIXES if part == "images" else MASK_SUFFIXES | ARRAY_SUFFIXES
    stems = Counter(path.stem for path in tree.files.iterdir())
    for path in tree.files.iterdir():
        if path.is_symlink() or not path.is_file() or path.suffix not in suffixes:
            continue
        stem = path.stem if stems[path.stem] == 1 else f"{path.stem}_{path.suffix[1:]}"
        (root / part / f"{stem}{path.suffix}").symlink_to(path)
        (root / other / f"{stem}.png").symlink_to(good / other / "a.png")


@pytest.mark.parametrize("part", ["images", "masks"])
def test_all_of_them_in_one_folder(tree: Tree, tmp_path: Path, part: str) -> None:
    data = tmp_path / "data"
    as_data(tree, data, part)
    assert len(list((data / part).iterdir())) > 300 - 100 * (part == "masks")
    before = tree.listing()
    page = tmp_path / "page.html"
    jobs = [
        ["doctor", str(data), "--html", str(page), "--json", str(tmp_path / "found.json")],
        ["convert-data", str(data), str(tmp_path / "converted")],
    ]
    if part == "images":  # the same check as of convert-data; once is enough
        jobs.append(["train", str(data), "--out", str(tmp_path / "run")])
    done = run(tmp_path, jobs, seconds=30)  # for hundreds of files
    assert [each["code"] for each in done] == [1, 2, 2][: len(jobs)]
    assert "more problems like these" in done[1]["err"]  # all were opened
    assert json.loads((tmp_path / "found.json").read_text())["trains"] is False
    assert "<script" not in page.read_text(encoding="utf-8")
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "converted").exists()
    assert tree.listing() == before


def test_all_of_them_are_given_to_a_network(tree: Tree, tmp_path: Path, tiny_bundle: Path) -> None:
    before = tree.listing()
    masks = tmp_path / "masks"
    pipe = tree.files / "pipe.png"
    # An image of 64 million pixels is one of another test: here it takes minutes.
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
