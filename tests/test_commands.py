"""The commands from end to end, those in the README included."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from pixelwise.data.scenes import SCENE_CLASSES, write_scenes
from pixelwise.errors import InputError
from pixelwise.weights.bundle import Bundle
from pixelwise.weights.imagenet import find_imagenet_weights

README = Path(__file__).parent.parent / "README.md"


def weights_or_skip() -> None:
    try:
        find_imagenet_weights("mobilenet_v2")
    except InputError as error:
        pytest.skip(str(error))


def run(arguments: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "pixelwise", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def readme_commands(start: str) -> list[list[str]]:
    """Return the lines of the README's shell blocks that begin with `start`."""
    blocks = re.findall(r"```(?:sh|bash|shell)\n(.*?)```", README.read_text("utf-8"), flags=re.S)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith(start)]


def test_the_commands_in_the_readme_run(tmp_path: Path) -> None:
    weights_or_skip()
    write_scenes(tmp_path / "photos", train=3, val=1, test=1, height=48, width=64)
    commands = readme_commands("pixelwise ")
    assert [words[1] for words in commands[:3]] == ["train", "evaluate", "predict"]
    for words in commands:
        trains = words[1] in {"train", "demo"} and "--resume" not in words
        quick = ["--epochs", "1"] if trains else []
        run([*words[1:], *quick], tmp_path)
    assert (tmp_path / "runs/photos/report.html").exists()
    assert list((tmp_path / "masks").glob("*_overlay.png"))


def test_the_python_code_in_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights_or_skip()
    write_scenes(tmp_path / "photos", train=2, val=1, height=48, width=64)
    run(["train", "photos", "--out", "runs/photos", "--epochs", "1"], tmp_path)
    image = next((tmp_path / "photos/images/val").iterdir())
    (tmp_path / "photo.jpg").write_bytes(image.read_bytes())
    blocks = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), flags=re.S)
    assert blocks
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


def test_the_make_targets_in_the_readme_exist() -> None:
    makefile = (README.parent / "Makefile").read_text("utf-8")
    commands = readme_commands("make ")
    assert ["make", "demo"] in commands
    assert ["make", "test"] in commands
    for words in commands:
        assert re.search(rf"^{words[1]}:", makefile, flags=re.M), words


def test_the_demo_runs(tmp_path: Path) -> None:
    weights_or_skip()
    done = run(["demo", "--out", "demo", "--epochs", "1"], tmp_path)
    assert "Traceback" not in done.stderr
    out = tmp_path / "demo"
    assert (out / "report.html").read_text("utf-8").startswith("<!doctype html>")
    assert len(list((out / "predictions").glob("*_overlay.png"))) == 8
    with Image.open(
        next(p for p in (out / "predictions").iterdir() if "overlay" not in p.name)
    ) as mask:
        assert mask.mode == "P"
    bundle = Bundle.load(out / "best.safetensors")
    assert bundle.classes == SCENE_CLASSES
    assert bundle.scores["mean_iou"] > 0.2  # after one epoch


@pytest.mark.slow
def test_the_full_demo_reaches_its_score(tmp_path: Path) -> None:
    weights_or_skip()
    run(["demo", "--out", "demo"], tmp_path)
    assert Bundle.load(tmp_path / "demo/best.safetensors").scores["mean_iou"] >= 0.85


def test_evaluate_reproduces_the_scores_in_the_bundle(tmp_path: Path) -> None:
    write_scenes(tmp_path / "photos", train=3, val=2, height=48, width=64)
    tiny = ["--set", "model.weights=none", "--set", "model.options.backbone=tiny"]
    run(["train", "photos", "--out", "run", "--epochs", "2", *tiny], tmp_path)
    bundle = Bundle.load(tmp_path / "run/last.safetensors")
    command = ["evaluate", "run/last.safetensors", "photos", "--split", "val"]
    printed = json.loads(run([*command, "--json", "-"], tmp_path).stdout)
    for key, value in bundle.scores.items():
        if key == "classes":  # evaluate reports more metrics for each class
            assert {
                name: {k: printed[key][name][k] for k in row} for name, row in value.items()
            } == value
        elif key != "epoch":
            assert printed[key] == value
    assert printed["intervals"]["images"] == 2
    assert 0 <= printed["mean_boundary_iou"] <= 1
    assert sum(row["pixels"] for row in printed["reliability"]) == printed["pixels"]
    table = run([*command, "--json", "scores.json"], tmp_path).stdout
    assert json.loads((tmp_path / "scores.json").read_text()) == printed
    for name in SCENE_CLASSES.names:
        assert name in table
    assert f"{100 * printed['mean_iou']:.1f}" in table


def test_models_lists_each_network_with_its_size(tmp_path: Path) -> None:
    out = run(["models"], tmp_path).stdout
    rows = [" ".join(line.split()) for line in out.splitlines()]
    assert "fcn8s vgg16 8 134.36 M 181 G at 500 65.5 [1]" in rows
    assert "  [1] seg11valid (authors' code)" in out
    assert "arXiv:1802.02611: deeplab_v3plus" in out
    assert max(map(len, out.splitlines())) <= 100  # only notes wrap in a terminal with 80 columns


def test_the_printed_recipe_can_be_read_back(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(run(["recipe", "demo"], tmp_path).stdout)
    again = run(["recipe", "mine.toml"], tmp_path).stdout
    assert again == (tmp_path / "mine.toml").read_text()
