"""Whatever is wrong with the input: one line with the file and the remedy, and nothing written."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

MakeData = Callable[..., Path]
Cli = Callable[..., Any]

# Small and with random weights, so that nothing but the fault under test can be the reason.
QUICK = ("--set", "model.weights=none", "--set", "model.options.backbone=tiny")


def contents(folder: Path) -> dict[str, str]:
    """Every file and folder below `folder`, and what is in it."""
    return {
        str(path.relative_to(folder)): (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        )
        for path in folder.rglob("*")
    }


def refused(cli: Cli, folder: Path, *arguments: object) -> str:
    """Run a command that must refuse its input and leave `folder` alone; what it said."""
    before = contents(folder)
    result = cli(*arguments)
    assert result.code == 2, result
    assert "Traceback" not in result.out + result.err
    (line,) = result.err.splitlines()
    assert line.startswith("pixelwise: error: ")
    assert contents(folder) == before
    return str(line.removeprefix("pixelwise: error: "))


def cut(path: Path, *, keep: float) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])


def save(path: Path, pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
    Image.fromarray(pixels).save(path)


# Training. Each function spoils a good folder and returns the path that must be named.


def no_folder(data: Path) -> Path:
    shutil.rmtree(data)
    return data


def a_file_for_a_folder(data: Path) -> Path:
    shutil.rmtree(data)
    data.write_text("no folder")
    return data


def no_images(data: Path) -> Path:
    for path in (*(data / "images").iterdir(), *(data / "masks").iterdir()):
        path.unlink()
    return data / "images"


def nothing_at_all(data: Path) -> Path:
    shutil.rmtree(data)
    data.mkdir()
    return data


def mask_without_image(data: Path) -> Path:
    (data / "images" / "002.png").unlink()
    return data / "masks" / "002.png"


def image_without_mask(data: Path) -> Path:
    (data / "masks" / "002.png").unlink()
    return data / "images" / "002.png"


def sizes_that_differ(data: Path) -> Path:
    save(data / "masks" / "001.png", np.zeros((24, 30), dtype=np.uint8))
    return data / "masks" / "001.png"


def value_outside_the_classes(data: Path) -> Path:
    save(data / "masks" / "001.png", np.full((24, 32), 77, dtype=np.uint8))
    return data / "masks" / "001.png"


def rgb_mask_without_table(data: Path) -> Path:
    (data / "classes.toml").unlink()
    save(data / "masks" / "001.png", np.zeros((24, 32, 3), dtype=np.uint8))
    return data / "masks" / "001.png"


def jpeg_cut_off(data: Path) -> Path:
    photo = data / "images" / "001.png"
    Image.open(photo).save(photo.with_suffix(".jpg"))
    photo.unlink()
    cut(photo.with_suffix(".jpg"), keep=0.7)
    return photo.with_suffix(".jpg")


def empty_image(data: Path) -> Path:
    (data / "images" / "003.png").write_bytes(b"")
    return data / "images" / "003.png"


def empty_mask(data: Path) -> Path:
    (data / "masks" / "003.png").write_bytes(b"")
    return data / "masks" / "003.png"


def text_for_an_image(data: Path) -> Path:
    (data / "images" / "003.png").write_text("no image")
    return data / "images" / "003.png"


def broken_class_table(data: Path) -> Path:
    (data / "classes.toml").write_text("[[class]\n")
    return data / "classes.toml"


@pytest.mark.parametrize(
    ("spoil", "remedy"),
    [
        (no_folder, "give the folder that holds the images and masks"),
        (a_file_for_a_folder, "give the folder that holds the images and masks"),
        (no_images, "put images there"),
        (nothing_at_all, "or a dataset as published (CamVid, "),
        (mask_without_image, "remove the mask"),
        (image_without_mask, "remove the image"),
        (sizes_that_differ, "make them the same size"),
        (value_outside_the_classes, "correct the mask or the class table"),
        (rgb_mask_without_table, "classes.toml with a name and color for each class"),
        (jpeg_cut_off, "restore the file or remove it"),
        (empty_image, "restore the file or remove it"),
        (empty_mask, "restore the file or remove it"),
        (text_for_an_image, "convert it or remove it"),
        (broken_class_table, "correct the line"),
    ],
)
def test_training_refuses_a_bad_folder(
    tmp_path: Path,
    cli: Cli,
    make_folder_data: MakeData,
    spoil: Callable[[Path], Path],
    remedy: str,
) -> None:
    named = spoil(make_folder_data(tmp_path / "data"))
    line = refused(cli, tmp_path, "train", "data", "--out", "run", *QUICK)
    assert line.startswith(f"{named.relative_to(tmp_path)}: ")
    assert remedy in line


def test_every_fault_has_a_line_and_a_flood_is_cut_short(
    tmp_path: Path, cli: Cli, make_folder_data: MakeData
) -> None:
    make_folder_data(tmp_path / "data", count=30)
    for path in (tmp_path / "data" / "masks").iterdir():
        path.write_bytes(b"")
    result = cli("train", "data", "--out", "run", *QUICK)
    assert result.code == 2
    *lines, last = result.err.splitlines()
    assert len(lines) == 20
    assert all("masks" in line and line.startswith("pixelwise: error: ") for line in lines)
    assert last == "pixelwise: error: and 10 more faults like these"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("out", ["file", "file/run", "file/a/b"])
def test_training_refuses_a_place_that_cannot_be_written(
    tmp_path: Path, cli: Cli, make_folder_data: MakeData, out: str
) -> None:
    make_folder_data(tmp_path / "data")
    (tmp_path / "file").write_text("in the way")
    line = refused(cli, tmp_path, "train", "data", "--out", out, *QUICK)
    assert line.startswith(f"{out}: ")
    assert "give a folder" in line or "choose another place" in line


@pytest.mark.parametrize("name", ["best.safetensors", "metrics.jsonl", "recipe.toml"])
def test_training_does_not_replace_a_run(
    tmp_path: Path, cli: Cli, make_folder_data: MakeData, name: str
) -> None:
    make_folder_data(tmp_path / "data")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_text("of an earlier run")
    line = refused(cli, tmp_path, "train", "data", "--out", "run", *QUICK)
    assert line == (
        "run: holds a run already: choose another --out, add --overwrite, or go on with "
        "--resume run"
    )


@pytest.mark.parametrize(
    ("options", "named", "remedy"),
    [
        (("--set", "optimiser.rate=1"), "'optimiser'", "allowed are epochs, "),
        (("--set", "optimizer.rate=1"), "'optimizer.rate'", "allowed are learning_rate, "),
        (("--set", "epochs=many"), "epochs = 'many'", "valid integer"),
        (("--set", "epochs=0"), "epochs = 0", "greater than or equal to 1"),
        (("--epochs", "0"), "epochs = 0", "greater than or equal to 1"),
        (("--epochs", "many"), "--epochs", "valid integer"),
        (("--set", "model.name=unet"), "'unet'", "there are fcn32s, "),
        (("--set", "model.options.backbone=vgg99"), "'vgg99'", "there are mobilenet_v2"),
        (("--set", "model.options.output_stride=7"), "output_stride 7", "16"),
        (("--set", "model.weights=absent.pth"), "absent.pth", "cannot be read"),
        (("--set", "loss.class_weights=[1.0]"), "loss.class_weights", "give 3"),
        (("--set", "epochs"), "'epochs'", "write KEY=VALUE"),
        (("--recipe", "voc2099"), "'voc2099'", "those shipped: deeplab_v1"),
        (("--recipe", "absent.toml"), "absent.toml", "cannot be read"),
        (("--recipe", "broken.toml"), "broken.toml", "correct the line"),
        (("--recipe", "surplus.toml"), "surplus.toml: unknown key 'color'", "allowed are epochs"),
        (("--device", "abacus"), "device = 'abacus'", "'cpu'"),
        (("--no-such-option",), "--no-such-option", "see `pixelwise train --help`"),
    ],
)
def test_training_refuses_a_bad_recipe(
    tmp_path: Path,
    cli: Cli,
    make_folder_data: MakeData,
    options: tuple[str, ...],
    named: str,
    remedy: str,
) -> None:
    make_folder_data(tmp_path / "data")
    (tmp_path / "broken.toml").write_text("epochs = \n")
    (tmp_path / "surplus.toml").write_text('color = "blue"\n')
    line = refused(cli, tmp_path, "train", "data", "--out", "run", *QUICK, *options)
    assert named in line
    assert remedy in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("train",), "Missing argument 'data', or --resume RUN: see `pixelwise train --help`"),
        (("predict",), "Missing argument 'bundle': see `pixelwise predict --help`"),
        (("predict", "b"), "Missing argument 'images': see `pixelwise predict --help`"),
        (("evaluate", "b"), "Missing argument 'data': see `pixelwise evaluate --help`"),
        (("trian", "data"), "No such command 'trian'"),
        (("recipe", "voc2099"), "recipe 'voc2099': is no file and not among those shipped"),
    ],
)
def test_a_command_that_is_not_whole_is_refused_in_one_line(
    tmp_path: Path, cli: Cli, arguments: tuple[str, ...], said: str
) -> None:
    assert said in refused(cli, tmp_path, *arguments)


# Predicting and scoring.


@pytest.fixture
def given(tmp_path: Path, make_folder_data: MakeData, tiny_bundle: Path) -> Path:
    """A folder with data/ and model.safetensors, all of it good; returns the bundle."""
    make_folder_data(tmp_path / "data")
    return Path(shutil.copy(tiny_bundle, tmp_path / "model.safetensors"))


PREDICT = ("predict", "model.safetensors", "data/images", "--out", "masks")
EVALUATE = ("evaluate", "model.safetensors", "data", "--json", "scores.json")


def absent(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("no bundle\n" * 100)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def foreign(path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(3)}, path)


@pytest.mark.parametrize("command", [PREDICT, EVALUATE])
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (absent, "is not there"),
        (empty, "is empty (0 bytes)"),
        (text, "is not a bundle"),
        (folder, "is a folder"),
        (foreign, "is a safetensors file but not a pixelwise bundle"),
    ],
)
def test_what_is_no_bundle_is_refused(
    tmp_path: Path,
    cli: Cli,
    given: Path,
    command: tuple[str, ...],
    spoil: Callable[[Path], None],
    said: str,
) -> None:
    spoil(given)
    line = refused(cli, tmp_path, *command)
    assert line.startswith(f"model.safetensors: {said}")
    assert "give the best.safetensors or last.safetensors of a run" in line


@pytest.mark.parametrize("command", [PREDICT, EVALUATE])
def test_a_bundle_that_is_cut_off_is_refused(
    tmp_path: Path, cli: Cli, given: Path, command: tuple[str, ...]
) -> None:
    whole = given.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for length in (1, 8, 9, header // 2, header, header + 1, len(whole) // 2, len(whole) - 1):
        given.write_bytes(whole[:length])
        line = refused(cli, tmp_path, *command)
        assert line.startswith("model.safetensors: is not a bundle, or is cut off"), length


@pytest.mark.parametrize("command", [PREDICT, EVALUATE])
def test_a_bundle_with_one_flipped_bit_in_the_weights_is_refused(
    tmp_path: Path, cli: Cli, given: Path, command: tuple[str, ...]
) -> None:
    whole = given.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for place in (header, (header + len(whole)) // 2, len(whole) - 1):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        given.write_bytes(damaged)
        line = refused(cli, tmp_path, *command)
        assert line.startswith("model.safetensors: is damaged"), place


def test_predict_refuses_a_image_that_is_cut_off(tmp_path: Path, cli: Cli, given: Path) -> None:
    cut(tmp_path / "data/images/000.png", keep=0.5)
    line = refused(cli, tmp_path, "predict", given.name, "data/images/000.png", "--out", "masks")
    assert line.startswith("data/images/000.png: is damaged or cut off")
    assert line.endswith("restore the file or remove it")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("data/absent.png", "is not there: check the path"),
        ("empty", "no images in it: give a folder with images"),
        ("data/classes.toml", "is not an image that can be read"),
    ],
)
def test_predict_refuses_what_holds_no_images(
    tmp_path: Path, cli: Cli, given: Path, path: str, said: str
) -> None:
    (tmp_path / "empty").mkdir()
    line = refused(cli, tmp_path, "predict", given.name, path, "--out", "masks")
    assert line.startswith(f"{path}: {said}")


@pytest.mark.parametrize("out", ["file", "file/masks", "file/a/b"])
def test_predict_refuses_a_place_that_cannot_be_written(
    tmp_path: Path, cli: Cli, given: Path, out: str
) -> None:
    (tmp_path / "file").write_text("in the way")
    line = refused(cli, tmp_path, "predict", given.name, "data/images", "--out", out)
    assert line.startswith(f"{out}: cannot be written")
    assert line.endswith("choose another place")


def test_predict_does_not_replace_its_own_input(tmp_path: Path, cli: Cli, given: Path) -> None:
    (tmp_path / "link").symlink_to("data/images")
    for out in ("data/images", "data/masks/../images", "link"):
        line = refused(cli, tmp_path, "predict", given.name, "data/images/001.png", "--out", out)
        assert line.startswith(f"{out}/001.png: is one of the images")
        assert "choose another --out" in line


def test_predict_goes_on_after_a_bad_image(tmp_path: Path, cli: Cli, given: Path) -> None:
    bad = tmp_path / "data/images/001.png"
    cut(bad, keep=0.5)
    before = contents(tmp_path / "data")
    result = cli(*PREDICT)
    assert result.code == 1
    (line,) = result.err.splitlines()
    assert line.startswith("pixelwise: error: data/images/001.png: is damaged or cut off")
    assert result.out.splitlines() == ["3 of 4 images predicted into masks"]
    good = ["000", "002", "003"]
    written = sorted(path.name for path in (tmp_path / "masks").iterdir())
    assert written == sorted(f"{name}{end}.png" for name in good for end in ("", "_overlay"))
    assert contents(tmp_path / "data") == before


def test_evaluate_refuses_a_split_that_is_not_there(tmp_path: Path, cli: Cli, given: Path) -> None:
    line = refused(cli, tmp_path, *EVALUATE, "--split", "exam")
    assert line == "data: has no split 'exam': it has train, val"


def test_evaluate_refuses_other_classes(tmp_path: Path, cli: Cli, given: Path) -> None:
    (tmp_path / "data" / "classes.toml").write_text(
        '[[class]]\nname = "cat"\n[[class]]\nname = "dog"\n[[class]]\nname = "cow"\n'
    )
    line = refused(cli, tmp_path, *EVALUATE)
    assert line.startswith("data: its classes are cat, dog, cow, the bundle's are sky, road, car:")
    assert line.endswith("score on data with the classes it was trained on")


def test_evaluate_refuses_mask_values_that_the_bundle_does_not_know(
    tmp_path: Path, cli: Cli, given: Path
) -> None:
    (tmp_path / "data" / "classes.toml").unlink()
    for path in (tmp_path / "data" / "masks").iterdir():
        save(path, np.full((24, 32), 9, dtype=np.uint8))
    line = refused(cli, tmp_path, *EVALUATE)
    assert "mask value 9 is not among the classes (0..2, 255 ignored)" in line


@pytest.mark.parametrize("spoil", [no_folder, no_images, mask_without_image])
def test_evaluate_refuses_a_bad_folder(
    tmp_path: Path, cli: Cli, given: Path, spoil: Callable[[Path], Path]
) -> None:
    named = spoil(tmp_path / "data")
    line = refused(cli, tmp_path, *EVALUATE)
    assert line.startswith(f"{named.relative_to(tmp_path)}: ")


def test_evaluate_names_a_score_file_that_cannot_be_written(
    tmp_path: Path, cli: Cli, given: Path
) -> None:
    line = refused(cli, tmp_path, "evaluate", given.name, "data", "--json", "absent/scores.json")
    assert line.startswith("absent/scores.json: cannot be written")


@pytest.mark.parametrize("command", [PREDICT, EVALUATE])
def test_a_device_that_is_not_there_is_refused(
    tmp_path: Path, cli: Cli, given: Path, command: tuple[str, ...]
) -> None:
    for device in ("abacus", "cuda:99"):
        assert repr(device) in refused(cli, tmp_path, *command, "--device", device)


# How the commands speak.


def test_names_are_printed_as_they_are(tmp_path: Path, cli: Cli, given: Path) -> None:
    odd = "[bold]a[/x] :car:"  # to rich a style, the end of another, and an emoji
    shutil.move(tmp_path / "data", tmp_path / odd)
    result = cli("predict", given.name, f"{odd}/images", "--out", f"out {odd}")
    assert (result.code, result.err) == (0, "")
    assert f"masks and overlays written to out {odd}" in result.out
    result = cli("evaluate", given.name, odd)
    assert (result.code, result.err) == (0, "")
    assert odd in result.out


def test_an_error_is_one_line_whatever_the_file_is_called(
    tmp_path: Path, cli: Cli, given: Path
) -> None:
    for name in ("two\nlines.png", "bell\a.png", "\x1b[31mred.png", "[red].png"):
        path = tmp_path / name
        path.write_bytes(b"")
        line = refused(cli, tmp_path, "predict", given.name, name, "--out", "masks")
        assert "is empty (0 bytes)" in line
        assert line.isprintable()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("train", "absent", "--out", "run", *QUICK), "absent: does not exist"),
        (("train",), "Missing argument 'data'"),
        (("predict", "absent.safetensors", "."), ".: no images in it"),
        (("evaluate", "absent.safetensors", "data"), "absent.safetensors: is not there"),
    ],
)
def test_a_process_of_its_own_says_the_same(
    tmp_path: Path, run_cli: Cli, arguments: tuple[str, ...], named: str
) -> None:
    assert named in refused(run_cli, tmp_path, *arguments)


HELP = """
import contextlib, io, sys
from pixelwise.cli import main
for arguments in {calls}:
    sys.argv = ["pixelwise", *arguments]
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            main()
    except SystemExit as ended:
        assert not ended.code, (arguments, ended.code)
    assert out.getvalue().strip(), arguments
    assert "torch" not in sys.modules, arguments
"""


def test_help_and_version_answer_without_torch() -> None:
    from pixelwise.cli import app

    commands = [c.callback.__name__.replace("_", "-") for c in app.registered_commands]
    assert {"train", "predict", "evaluate"} <= set(commands)
    calls = [["--version"], ["--help"], *([name, "--help"] for name in commands)]
    done = subprocess.run(
        [sys.executable, "-c", HELP.format(calls=calls)], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_no_arguments_bring_up_the_help(cli: Cli) -> None:
    result = cli()
    assert result.code == 2
    assert "Usage: pixelwise" in result.out + result.err
    assert "error" not in result.out + result.err
