"""Bad input: each command prints one line with the file and the remedy, and writes nothing."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fixture_types import Cli, MakeData
from pixelwise.cli.console import complain
from pixelwise.errors import InputError
from pixelwise.interrupts import Interrupts, StoppedError

# Small and with random weights, so that only the fault under test can cause an error.
QUICK = ("--set", "model.weights=none", "--set", "model.options.backbone=tiny")


def contents(folder: Path) -> dict[str, str]:
    """Return every file and folder below `folder` with a digest of its content."""
    return {
        str(path.relative_to(folder)): (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        )
        for path in folder.rglob("*")
    }


def refused(cli: Cli, folder: Path, *arguments: object) -> str:
    """Run a command that must refuse its input and not change `folder`. Return the message."""
    before = contents(folder)
    result = cli(*arguments)
    assert result.code == 2, result
    assert "Traceback" not in result.out + result.err
    (line,) = result.err.splitlines()
    assert line.startswith("pixelwise: error: ")
    assert contents(folder) == before
    return str(line.removeprefix("pixelwise: error: "))


def truncate(path: Path, *, keep: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


def save(path: Path, pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
    Image.fromarray(pixels).save(path)


# Training. Each function damages a good folder and returns the path that the error must name.


def no_folder(data: Path) -> Path:
    shutil.rmtree(data)
    return data


def a_file_in_place_of_the_folder(data: Path) -> Path:
    shutil.rmtree(data)
    data.write_text("no folder")
    return data


def no_images(data: Path) -> Path:
    for path in (*(data / "images").iterdir(), *(data / "masks").iterdir()):
        path.unlink()
    return data / "images"


def an_empty_folder(data: Path) -> Path:
    shutil.rmtree(data)
    data.mkdir()
    return data


def mask_without_image(data: Path) -> Path:
    (data / "images" / "002.png").unlink()
    return data / "masks" / "002.png"


def image_without_mask(data: Path) -> Path:
    (data / "masks" / "002.png").unlink()
    return data / "images" / "002.png"


def mask_of_another_size(data: Path) -> Path:
    save(data / "masks" / "001.png", np.zeros((24, 30), dtype=np.uint8))
    return data / "masks" / "001.png"


def value_outside_the_classes(data: Path) -> Path:
    save(data / "masks" / "001.png", np.full((24, 32), 77, dtype=np.uint8))
    return data / "masks" / "001.png"


def rgb_mask_without_class_table(data: Path) -> Path:
    (data / "classes.toml").unlink()
    save(data / "masks" / "001.png", np.full((24, 32, 3), (0, 0, 1), dtype=np.uint8))
    return data / "masks" / "001.png"


def truncated_jpeg(data: Path) -> Path:
    image = data / "images" / "001.png"
    Image.open(image).save(image.with_suffix(".jpg"))
    image.unlink()
    truncate(image.with_suffix(".jpg"), keep=0.7)
    return image.with_suffix(".jpg")


def empty_image(data: Path) -> Path:
    (data / "images" / "003.png").write_bytes(b"")
    return data / "images" / "003.png"


def empty_mask(data: Path) -> Path:
    (data / "masks" / "003.png").write_bytes(b"")
    return data / "masks" / "003.png"


def text_in_place_of_an_image(data: Path) -> Path:
    (data / "images" / "003.png").write_text("no image")
    return data / "images" / "003.png"


def broken_class_table(data: Path) -> Path:
    (data / "classes.toml").write_text("[[class]\n")
    return data / "classes.toml"


@pytest.mark.parametrize(
    ("damage", "remedy"),
    [
        (no_folder, "give the folder that holds the images and masks"),
        (a_file_in_place_of_the_folder, "give the folder that holds the images and masks"),
        (no_images, "put images there"),
        (an_empty_folder, "or a dataset as published (CamVid, "),
        (mask_without_image, "remove the mask"),
        (image_without_mask, "remove the image"),
        (mask_of_another_size, "make them the same size"),
        (value_outside_the_classes, "correct the mask or the class table"),
        (rgb_mask_without_class_table, "classes.toml with a name and a color for each class"),
        (truncated_jpeg, "restore the file or remove it"),
        (empty_image, "restore the file or remove it"),
        (empty_mask, "restore the file or remove it"),
        (text_in_place_of_an_image, "convert it or remove it"),
        (broken_class_table, "correct the line"),
    ],
)
def test_training_refuses_a_bad_folder(
    tmp_path: Path,
    cli: Cli,
    make_folder_data: MakeData,
    damage: Callable[[Path], Path],
    remedy: str,
) -> None:
    named = damage(make_folder_data(tmp_path / "data"))
    line = refused(cli, tmp_path, "train", "data", "--out", "run", *QUICK)
    assert line.startswith(f"{named.relative_to(tmp_path)}: ")
    assert remedy in line


def test_equal_problems_are_one_line_with_their_number_and_examples(
    tmp_path: Path, cli: Cli, make_folder_data: MakeData
) -> None:
    make_folder_data(tmp_path / "data", count=30)
    masks = sorted((tmp_path / "data" / "masks").iterdir())
    for path in masks:
        path.write_bytes(b"")
    line = refused(cli, tmp_path, "train", "data", "--out", "run", *QUICK)
    named = re.fullmatch(
        r"data/masks/(\d+\.png): is empty .* \(30 such problems; also (\S+) and (\S+)\)", line
    )
    assert named
    assert len(set(named.groups())) == 3
    assert set(named.groups()) <= {path.name for path in masks}
    assert not (tmp_path / "run").exists()


def test_different_problems_have_a_line_each_and_many_are_cut_short(
    capsys: pytest.CaptureFixture[str],
) -> None:
    problems = [f"file: word {'x' * number}y: remedy" for number in range(30)]
    complain(InputError(*problems))
    *lines, last = capsys.readouterr().err.splitlines()
    assert lines == [f"pixelwise: error: {problem}" for problem in problems[:20]]
    assert last == "pixelwise: error: and 10 more problems like these"


@pytest.mark.parametrize("out", ["file", "file/run", "file/a/b"])
def test_training_refuses_an_output_folder_that_cannot_be_written(
    tmp_path: Path, cli: Cli, make_folder_data: MakeData, out: str
) -> None:
    make_folder_data(tmp_path / "data")
    (tmp_path / "file").write_text("a file")
    line = refused(cli, tmp_path, "train", "data", "--out", out, *QUICK)
    assert line.startswith(f"{out}: ")
    assert "give a folder" in line or "choose another path" in line


@pytest.mark.parametrize("name", ["best.safetensors", "metrics.jsonl", "recipe.toml"])
def test_training_does_not_replace_a_run(
    tmp_path: Path, cli: Cli, make_folder_data: MakeData, name: str
) -> None:
    make_folder_data(tmp_path / "data")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_text("from an earlier run")
    line = refused(cli, tmp_path, "train", "data", "--out", "run", *QUICK)
    assert line == (
        "run: holds a run already: choose another --out, add --overwrite, or resume it with "
        "--resume run"
    )


@pytest.mark.parametrize(
    ("options", "named", "remedy"),
    [
        (("--set", "optimiser.rate=1"), "'optimiser'", "allowed are epochs, "),
        (("--set", "optimizer.rate=1"), "'optimizer.rate'", "allowed are name, learning_rate, "),
        (("--set", "epochs=many"), "epochs = 'many'", "valid integer"),
        (("--set", "epochs=0"), "epochs = 0", "at least 1"),
        (("--epochs", "0"), "epochs = 0", "at least 1"),
        (("--epochs", "many"), "--epochs", "valid integer"),
        (("--set", "model.name=unet"), "'unet'", "must be one of fcn32s, "),
        (("--set", "model.options.backbone=vgg99"), "'vgg99'", "must be one of mobilenet_v2"),
        (("--set", "model.options.output_stride=7"), "output_stride 7", "16"),
        (("--set", "model.weights=absent.pth"), "absent.pth", "cannot be read"),
        (("--set", "loss.class_weights=[1.0]"), "loss.class_weights", "give 3"),
        (("--set", "epochs"), "'epochs'", "write KEY=VALUE"),
        (("--recipe", "voc2099"), "'voc2099'", "the shipped recipes are deeplab_v1"),
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


def test_training_refuses_a_folder_that_holds_other_files(
    tmp_path: Path, cli: Cli, make_folder_data: MakeData
) -> None:
    make_folder_data(tmp_path / "data")
    for more in ((), ("--overwrite",)):
        line = refused(cli, tmp_path, "train", "data", "--out", "data/images", *QUICK, *more)
        assert line == (
            "data/images: holds other files and no run: choose a new or empty folder with --out"
        )


def test_a_run_folder_may_hold_its_own_dataset(
    tmp_path: Path, cli: Cli, make_folder_data: MakeData
) -> None:
    make_folder_data(tmp_path / "work" / "photos")
    train = ("train", "work/photos", "--out", "work", "--plan-only", *QUICK)
    assert cli(*train).code == 0
    (tmp_path / "work" / "letter.txt").write_text("not a run")
    assert "work: holds other files and no run" in refused(cli, tmp_path, *train)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train",), "Missing argument 'data', or --resume RUN: see `pixelwise train --help`"),
        (("predict",), "Missing argument 'bundle': see `pixelwise predict --help`"),
        (("predict", "b"), "Missing argument 'images': see `pixelwise predict --help`"),
        (("evaluate", "b"), "Missing argument 'bundles': see `pixelwise evaluate --help`"),
        (("trian", "data"), "No such command 'trian'"),
        (("predcit", "b"), "Did you mean 'predict'"),
        (("predcit", "b"), "? See `pixelwise --help`"),
        (("recipe", "voc2099"), "recipe 'voc2099': is neither a file nor a shipped recipe"),
    ],
)
def test_incomplete_commands_are_refused_in_one_line(
    tmp_path: Path, cli: Cli, arguments: tuple[str, ...], message: str
) -> None:
    assert message in refused(cli, tmp_path, *arguments)


# Prediction and evaluation.


@pytest.fixture
def bundle(tmp_path: Path, make_folder_data: MakeData, tiny_bundle: Path) -> Path:
    """The bundle model.safetensors in a folder with valid data/."""
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


def other_safetensors(path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(3)}, path)


@pytest.mark.parametrize("command", [PREDICT, EVALUATE])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (absent, "does not exist"),
        (empty, "is empty (0 bytes)"),
        (text, "is not a bundle"),
        (folder, "is a folder"),
        (other_safetensors, "is a safetensors file but not a pixelwise bundle"),
    ],
)
def test_files_that_are_not_bundles_are_refused(
    tmp_path: Path,
    cli: Cli,
    bundle: Path,
    command: tuple[str, ...],
    damage: Callable[[Path], None],
    message: str,
) -> None:
    damage(bundle)
    line = refused(cli, tmp_path, *command)
    assert line.startswith(f"model.safetensors: {message}")
    assert "give the best.safetensors or last.safetensors of a run" in line


@pytest.mark.parametrize("command", [PREDICT, EVALUATE])
def test_a_truncated_bundle_is_refused(
    tmp_path: Path, cli: Cli, bundle: Path, command: tuple[str, ...]
) -> None:
    content = bundle.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    for length in (1, 8, 9, header // 2, header, header + 1, len(content) // 2, len(content) - 1):
        bundle.write_bytes(content[:length])
        line = refused(cli, tmp_path, *command)
        assert line.startswith("model.safetensors: is not a bundle, or is cut off"), length


@pytest.mark.parametrize("command", [PREDICT, EVALUATE])
def test_a_bundle_with_one_flipped_bit_in_the_weights_is_refused(
    tmp_path: Path, cli: Cli, bundle: Path, command: tuple[str, ...]
) -> None:
    content = bundle.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    for position in (header, (header + len(content)) // 2, len(content) - 1):
        damaged = bytearray(content)
        damaged[position] ^= 1
        bundle.write_bytes(damaged)
        line = refused(cli, tmp_path, *command)
        assert line.startswith("model.safetensors: is damaged"), position


def test_predict_refuses_a_truncated_image(tmp_path: Path, cli: Cli, bundle: Path) -> None:
    truncate(tmp_path / "data/images/000.png", keep=0.5)
    line = refused(cli, tmp_path, "predict", bundle.name, "data/images/000.png", "--out", "masks")
    assert line.startswith("data/images/000.png: is damaged or cut off")
    assert line.endswith("restore the file or remove it")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("data/absent.png", "does not exist: check the path"),
        ("empty", "no images in it: give a folder with images"),
        ("data/classes.toml", "is not an image that can be read"),
    ],
)
def test_predict_refuses_paths_without_images(
    tmp_path: Path, cli: Cli, bundle: Path, path: str, message: str
) -> None:
    (tmp_path / "empty").mkdir()
    line = refused(cli, tmp_path, "predict", bundle.name, path, "--out", "masks")
    assert line.startswith(f"{path}: {message}")


@pytest.mark.parametrize("out", ["file", "file/masks", "file/a/b"])
def test_predict_refuses_an_output_folder_that_cannot_be_written(
    tmp_path: Path, cli: Cli, bundle: Path, out: str
) -> None:
    (tmp_path / "file").write_text("a file")
    line = refused(cli, tmp_path, "predict", bundle.name, "data/images", "--out", out)
    assert line.startswith(f"{out}: cannot be written")
    assert line.endswith("choose another path")


def test_predict_does_not_overwrite_its_input(tmp_path: Path, cli: Cli, bundle: Path) -> None:
    (tmp_path / "link").symlink_to("data/images")
    for out in ("data/images", "data/masks/../images", "link"):
        line = refused(cli, tmp_path, "predict", bundle.name, "data/images/001.png", "--out", out)
        assert line.startswith(f"{out}/001.png: is one of the images")
        assert "choose another --out" in line


def test_predict_continues_after_a_damaged_image(tmp_path: Path, cli: Cli, bundle: Path) -> None:
    bad = tmp_path / "data/images/001.png"
    truncate(bad, keep=0.5)
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


def test_evaluate_refuses_a_missing_split(tmp_path: Path, cli: Cli, bundle: Path) -> None:
    line = refused(cli, tmp_path, *EVALUATE, "--split", "exam")
    assert line == "data: there is no split 'exam': it has train, val"


def test_evaluate_refuses_other_classes(tmp_path: Path, cli: Cli, bundle: Path) -> None:
    (tmp_path / "data" / "classes.toml").write_text(
        '[[class]]\nname = "cat"\n[[class]]\nname = "dog"\n[[class]]\nname = "cow"\n'
    )
    line = refused(cli, tmp_path, *EVALUATE)
    assert line == (
        "data: the dataset's classes are cat, dog, cow, but the bundle's are sky, road, car: use "
        "data with the classes that the network was trained on"
    )


def test_evaluate_refuses_unknown_mask_values(tmp_path: Path, cli: Cli, bundle: Path) -> None:
    (tmp_path / "data" / "classes.toml").unlink()
    for path in (tmp_path / "data" / "masks").iterdir():
        save(path, np.full((24, 32), 9, dtype=np.uint8))
    line = refused(cli, tmp_path, *EVALUATE)
    assert "mask value 9 is not among the classes (0..2, 255 ignored)" in line


@pytest.mark.parametrize("damage", [no_folder, no_images, mask_without_image])
def test_evaluate_refuses_a_bad_folder(
    tmp_path: Path, cli: Cli, bundle: Path, damage: Callable[[Path], Path]
) -> None:
    named = damage(tmp_path / "data")
    line = refused(cli, tmp_path, *EVALUATE)
    assert line.startswith(f"{named.relative_to(tmp_path)}: ")


def test_evaluate_names_a_score_file_that_cannot_be_written(
    tmp_path: Path, cli: Cli, bundle: Path
) -> None:
    line = refused(cli, tmp_path, "evaluate", bundle.name, "data", "--json", "absent/scores.json")
    assert line.startswith("absent/scores.json: cannot be written")


@pytest.mark.parametrize("command", [PREDICT, EVALUATE])
def test_a_tile_smaller_than_the_network_needs_is_refused_once(
    tmp_path: Path, cli: Cli, bundle: Path, command: tuple[str, ...]
) -> None:
    line = refused(cli, tmp_path, *command, "--tile", "16")
    assert line.startswith("tile 16: the receptive field of this network extends")


@pytest.mark.parametrize("command", [PREDICT, EVALUATE])
def test_an_unknown_device_is_refused(
    tmp_path: Path, cli: Cli, bundle: Path, command: tuple[str, ...]
) -> None:
    for device in ("abacus", "cuda:99"):
        assert repr(device) in refused(cli, tmp_path, *command, "--device", device)


def test_a_run_folder_or_a_photo_as_bundle_is_refused_with_the_bundle_to_give(
    tmp_path: Path, cli: Cli, bundle: Path
) -> None:
    (tmp_path / "run").mkdir()
    shutil.copy(bundle, tmp_path / "run" / "best.safetensors")
    line = refused(cli, tmp_path, "predict", "run", "data/images")
    assert line == "run: is a folder, not a bundle: give run/best.safetensors"
    photo = next((tmp_path / "data" / "images").iterdir()).relative_to(tmp_path)
    line = refused(cli, tmp_path, "predict", photo, "data/images")
    assert line.startswith(f"{photo}: is not a bundle, or is cut off or damaged: give the best.")


# Output of the commands.


def test_predict_names_the_runtime_and_the_masks_that_it_replaces(
    tmp_path: Path, cli: Cli, bundle: Path
) -> None:
    first = cli(*PREDICT)
    assert first.out.endswith("written to masks (runtime torch)\n")
    assert "replaced" not in first.out
    again = cli(*PREDICT, "--flip")
    assert "masks: replaced the masks of " in again.out
    assert (again.code, again.err) == (0, "")


def test_a_deliberate_stop_is_not_called_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    complain(StoppedError("stopped", signal_number=2))
    complain(InputError("wrong"))
    assert capsys.readouterr().err == "pixelwise: stopped\npixelwise: error: wrong\n"


def test_ctrl_c_is_acknowledged_at_once_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for on_terminal in (False, True):
        monkeypatch.setattr("os.isatty", lambda file, answer=on_terminal: answer)
        with Interrupts() as interrupts:
            signal.raise_signal(signal.SIGINT)
            assert interrupts.requested == signal.SIGINT
        assert ("stopping after this step" in capfd.readouterr().err) == on_terminal


def test_names_are_printed_literally(tmp_path: Path, cli: Cli, bundle: Path) -> None:
    odd = "[bold]a[/x] :car:"  # in rich markup: a style, the end of another, and an emoji
    shutil.move(tmp_path / "data", tmp_path / odd)
    result = cli("predict", bundle.name, f"{odd}/images", "--out", f"out {odd}")
    assert (result.code, result.err) == (0, "")
    assert f"masks and overlays written to out {odd}" in result.out
    result = cli("evaluate", bundle.name, odd)
    assert (result.code, result.err) == (0, "")
    assert odd in result.out


def test_an_error_is_one_line_for_any_file_name(tmp_path: Path, cli: Cli, bundle: Path) -> None:
    for name in ("two\nlines.png", "bell\a.png", "\x1b[31mred.png", "[red].png"):
        path = tmp_path / name
        path.write_bytes(b"")
        line = refused(cli, tmp_path, "predict", bundle.name, name, "--out", "masks")
        assert "is empty (0 bytes)" in line
        assert line.isprintable()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("train", "absent", "--out", "run", *QUICK), "absent: does not exist"),
        (("train",), "Missing argument 'data'"),
        (("predict", "absent.safetensors", "."), ".: no images in it"),
        (("evaluate", "absent.safetensors", "data"), "absent.safetensors: does not exist"),
    ],
)
def test_a_new_process_prints_the_same_errors(
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
    except SystemExit as error:
        assert not error.code, (arguments, error.code)
    assert out.getvalue().strip(), arguments
    assert "torch" not in sys.modules, arguments
"""


def test_help_and_version_do_not_import_torch() -> None:
    from pixelwise.cli import app

    commands = [c.callback.__name__.replace("_", "-") for c in app.registered_commands]
    assert {"train", "predict", "evaluate"} <= set(commands)
    calls = [["--version"], ["--help"], *([name, "--help"] for name in commands)]
    done = subprocess.run(
        [sys.executable, "-c", HELP.format(calls=calls)], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_no_arguments_show_the_help(cli: Cli) -> None:
    result = cli()
    assert result.code == 2
    assert "Usage: pixelwise" in result.out + result.err
    assert "error:" not in result.out + result.err


@pytest.fixture
def unwritable(monkeypatch: pytest.MonkeyPatch) -> str:
    """Set the home and temporary folders to a folder that nobody can write."""
    nowhere = "/proc/self"
    if not Path(nowhere).is_dir():
        pytest.skip("needs /proc")
    for name in ("HOME", "TMPDIR"):
        monkeypatch.setenv(name, nowhere)
    monkeypatch.delenv("PIXELWISE_CACHE", raising=False)
    return nowhere


ONE_AFTER_ANOTHER = """
import json, os, pwd, sys
from pixelwise.cli import main

def no_account(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")

if "HOME" not in os.environ:
    pwd.getpwuid = no_account
if __name__ == "__main__":
    for sys.argv in json.load(sys.stdin):
        try:
            main()
        except SystemExit as end:
            assert end.code == 0, sys.argv
"""


@pytest.mark.parametrize("account", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_commands_do_without_a_home_and_the_usual_temporary_folder(
    account: bool,
    unwritable: str,
    tmp_path: Path,
    make_folder_data: MakeData,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In one process, because importing PyTorch three times takes long."""
    if not account:  # as with `docker run --user`
        monkeypatch.delenv("HOME")
    data = make_folder_data(tmp_path / "data", splits={"train": 2, "val": 1})
    quick = (*QUICK, "--epochs", "1", "--batch-size", "2", "--out", "run")
    commands = [
        ("train", data, *quick, "--set", "data.workers=1"),
        ("export", "run/best.safetensors", "--to", "onnx"),
        ("predict", "run/best.safetensors", data / "images" / "val", "--crf"),
    ]
    done = subprocess.run(
        [sys.executable, "-c", ONE_AFTER_ANOTHER],
        input=json.dumps([["pixelwise", *map(str, arguments)] for arguments in commands]),
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(list((tmp_path / "predictions").glob("*_overlay.png"))) == 1


def test_without_any_temporary_folder_a_command_works_or_names_the_variable(
    unwritable: str,
    cli: Cli,
    tmp_path: Path,
    tiny_bundle: Path,
    make_folder_data: MakeData,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = make_folder_data(tmp_path / "data", splits={"train": 2, "val": 1})
    bundle = shutil.copy(tiny_bundle, tmp_path / "b.safetensors")
    with monkeypatch.context() as context:
        context.setattr(tempfile, "tempdir", None)
        context.setattr(tempfile, "_candidate_tempdir_list", lambda: [unwritable])
        predicted = cli("predict", bundle, data / "images" / "val", "--crf")
        tuned = cli("tune-crf", bundle, data)
    assert (predicted.code, predicted.err) == (0, "")
    assert tuned.code == 1
    (line,) = tuned.err.splitlines()
    assert line.endswith(": set the variable TMPDIR to a folder that can be written")
