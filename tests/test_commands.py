"""The commands from end to end. test_docs.py runs the commands of the documentation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from fixture_types import Cli
from pixelwise.data.scenes import SCENE_CLASSES, write_scenes
from pixelwise.errors import InputError
from pixelwise.weights.bundle import Bundle
from pixelwise.weights.published.fetch import find_imagenet_weights


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


def check_demo(out: Path) -> Bundle:
    """Check the files of a demo and return its best bundle."""
    assert (out / "report.html").read_text("utf-8").startswith("<!doctype html>")
    assert len(list((out / "predictions").glob("*_overlay.png"))) == 8
    with Image.open(
        next(p for p in (out / "predictions").iterdir() if "overlay" not in p.name)
    ) as mask:
        assert mask.mode == "P"
    bundle = Bundle.load(out / "best.safetensors")
    assert bundle.classes == SCENE_CLASSES
    return bundle


def test_the_demo_runs_on_fewer_and_smaller_scenes(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights_or_skip()
    monkeypatch.setattr("pixelwise.cli.demo.DEMO_SCENES", {"train": 40, "val": 4, "test": 8})
    monkeypatch.setattr("pixelwise.cli.demo.DEMO_SIZE", {"height": 96, "width": 128})
    result = cli("demo", "--out", "demo", "--epochs", "2")
    assert result.code == 0, result.err
    assert "52 scenes generated" in result.err + result.out
    assert check_demo(tmp_path / "demo").scores["mean_iou"] > 0.15


@pytest.mark.slow
@pytest.mark.parametrize(("epochs", "score"), [(["--epochs", "1"], 0.2), ([], 0.85)])
def test_the_full_demo_reaches_its_score(epochs: list[str], score: float, tmp_path: Path) -> None:
    weights_or_skip()
    done = run(["demo", "--out", "demo", *epochs], tmp_path)
    assert "Traceback" not in done.stderr
    assert check_demo(tmp_path / "demo").scores["mean_iou"] >= score


def test_evaluate_reproduces_the_scores_in_the_bundle(tmp_path: Path, cli: Cli) -> None:
    write_scenes(tmp_path / "photos", train=3, val=2, height=48, width=64)
    tiny = ["--set", "model.weights=none", "--set", "model.options.backbone=tiny"]
    assert cli("train", "photos", "--out", "run", "--epochs", 2, *tiny).code == 0
    bundle = Bundle.load(tmp_path / "run/last.safetensors")
    command = ["evaluate", "run/last.safetensors", "photos", "--split", "val"]
    printed = json.loads(cli(*command, "--json", "-").out)
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
    table = cli(*command, "--json", "scores.json").out
    saved = json.loads((tmp_path / "scores.json").read_text())
    assert saved.pop("written_by") == "pixelwise evaluate"
    assert saved == printed
    for name in SCENE_CLASSES.names:
        assert name in table
    assert f"{100 * printed['mean_iou']:.1f}" in table


def test_models_lists_each_network_with_its_size(cli: Cli) -> None:
    out = cli("models").out
    rows = [" ".join(line.split()) for line in out.splitlines()]
    assert "fcn8s vgg16 8 134.36 M 181 G at 500 65.5 [1]" in rows
    assert "  [1] seg11valid (authors' code)" in out
    assert "arXiv:1802.02611: deeplab_v3plus" in out
    assert any(row.startswith("fcn_googlenet googlenet [A] 32 ") for row in rows)
    assert "  [A] torchvision's GoogLeNet with batch normalization; the paper's" in out
    assert max(map(len, out.splitlines())) <= 100  # only notes wrap in a terminal with 80 columns


def test_the_printed_recipe_can_be_read_back(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "mine.toml").write_text(cli("recipe", "demo").out)
    again = cli("recipe", "mine.toml").out
    assert again == (tmp_path / "mine.toml").read_text()
