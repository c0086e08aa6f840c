"""The public Python API: what `import pixelwise` offers, and how it reports progress and errors."""

from __future__ import annotations

import dataclasses
import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import pixelwise
from fixture_types import MakeData
from pixelwise import InputError, api
from pixelwise.data.classes import Classes
from pixelwise.data.scenes import SCENE_CLASSES, write_scenes
from pixelwise.progress import Bar, Clock, duration

FUNCTIONS = (
    "create_model",
    "cross_validate",
    "evaluate",
    "examine",
    "export",
    "finish",
    "learning_curve",
    "label_errors",
    "list_models",
    "load",
    "merge",
    "open_dataset",
    "predict_folder",
    "predict_shards",
    "resume",
    "select",
    "train",
)


def run_python(code: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# --- Names


def test_importing_and_listing_the_api_is_fast_because_it_imports_no_package() -> None:
    code = """
import sys
before = {*sys.modules}
import pixelwise
names = dir(pixelwise)
assert {*pixelwise.__all__} == {*names}, names
new = {name.partition(".")[0] for name in {*sys.modules} - before}
print(*new - {*sys.stdlib_module_names})
"""
    assert run_python(code).split() == ["pixelwise"]


def test_all_names_exist() -> None:
    assert {*FUNCTIONS} <= {*pixelwise.__all__}
    for name in pixelwise.__all__:
        assert getattr(pixelwise, name) is not None


def test_names_resolve_whatever_was_imported_before() -> None:
    # Importing a submodule sets an attribute on the package, which would hide a function.
    modules = {path.stem for path in Path(pixelwise.__file__).parent.iterdir()}
    assert {*pixelwise.__all__} & modules == set()


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'pixelwise' has no attribute 'segment'"):
        pixelwise.segment  # type: ignore[attr-defined]  # noqa: B018
    assert not hasattr(pixelwise, "segment")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_documented_and_typed(name: str) -> None:
    function = getattr(pixelwise, name)
    signature = inspect.signature(function)
    documentation = inspect.getdoc(function) or ""
    summary = documentation.splitlines()[0]
    assert summary.endswith(".")
    assert signature.return_annotation is not inspect.Signature.empty
    for argument in signature.parameters.values():
        assert argument.annotation is not inspect.Parameter.empty
        assert argument.kind is not inspect.Parameter.VAR_POSITIONAL
        if argument.kind is not inspect.Parameter.VAR_KEYWORD:
            assert f"{argument.name}:" in documentation, argument.name
    assert "Returns:" in documentation


# --- Missing packages

HIDE_TORCH = """
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "lightning_fabric"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hide())
import pixelwise
"""


@pytest.mark.parametrize(
    "call",
    [
        "pixelwise.train('data', out='run')",
        "pixelwise.resume('run')",
        "pixelwise.export('b.safetensors')",
        "pixelwise.create_model",
    ],
)
def test_missing_pytorch_is_reported_with_the_command_that_installs_it(call: str) -> None:
    code = f"""{HIDE_TORCH}
try:
    {call}
except pixelwise.InputError as error:
    assert isinstance(error, ImportError)
    print(error)
"""
    message = "this needs PyTorch, which is not installed: "
    message += "run pip install '.[train]' in the clone of pixelwise"
    assert run_python(code) == message


def test_commands_report_missing_pytorch_in_one_line_and_exit_with_2(tmp_path: Path) -> None:
    code = f"""{HIDE_TORCH}
from pixelwise.cli import main
sys.argv = ["pixelwise", "train", {str(tmp_path)!r}, "--out", {str(tmp_path / "run")!r}]
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == (
        "pixelwise: error: this needs PyTorch, which is not installed: "
        "run pip install '.[train]' in the clone of pixelwise\n"
    )


def test_prediction_and_the_doctor_do_not_import_pytorch() -> None:
    modules = ("inference", "inference.runtimes", "evaluation", "doctor", "recipes.schema", "cli")
    code = HIDE_TORCH + "".join(f"import pixelwise.{module}\n" for module in modules)
    assert run_python(code + "print(pixelwise.Predictor.__name__)") == "Predictor"


# --- Progress


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1:00 min"), (185, "3:05 min"), (7800, "2:10 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_duration_of_a_job_that_has_not_begun_is_unknown() -> None:
    clock = Clock(done=5)
    assert duration(clock.left(5, 10)) == "?"
    assert clock.left(6, 10) >= 0


def test_bars_are_silent_without_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with Bar("working") as bar:
        bar(1, 2)
        bar.describe("still working", unit="steps")
        bar(2, 2)
    assert capfd.readouterr() == ("", "")


def test_bars_show_the_count_on_a_terminal_unless_quiet() -> None:
    from io import StringIO

    from rich.console import Console

    for quiet in (False, True):
        stream = StringIO()
        console = Console(file=stream, force_terminal=True, width=100)
        with Bar("predicting [x]", console=console, quiet=quiet) as bar:
            bar(40, 100)  # 39 of an earlier run
            assert bar.progress.tasks[0].completed == 40
            bar.progress.refresh()
        assert ("predicting [x]" in stream.getvalue()) is not quiet
        assert ("40/100" in stream.getvalue()) is not quiet


# --- Functions


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    return write_scenes(tmp_path / "scenes", train=2, val=2, height=32, width=48)


def test_train_puts_its_arguments_into_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch import nn

    calls: list[tuple[Any, ...]] = []

    def train(data: Path, out: Path, recipe: Any, **others: Any) -> None:
        calls.append((data, out, recipe, others))

    monkeypatch.setattr("pixelwise.training.train", train)
    pixelwise.train(
        "photos",
        out="run",
        model="deeplab_v3",
        backbone="resnet50",
        output_stride=8,
        weights="none",
        crop=65,
        epochs=3,
        batch_size=2,
        learning_rate=0.002,
        seed=7,
        device="cpu",
        settings={"epochs": 9, "loss.name": "focal"},
        overwrite=True,
    )
    data, out, recipe, others = calls.pop()
    assert (data, out, others["overwrite"], others["model"]) == ("photos", Path("run"), True, None)
    values = recipe.flat()
    for key, value in {
        "model.name": "deeplab_v3",
        "model.options.backbone": "resnet50",
        "model.options.output_stride": 8,
        "model.weights": "none",
        "augmentation.crop": [65, 65],
        "epochs": 3,
        "batch_size": 2,
        "optimizer.learning_rate": 0.002,
        "seed": 7,
        "device": "cpu",
        "loss.name": "focal",
    }.items():
        assert values[key] == value, key
    network = nn.Conv2d(3, 2, 1)
    pixelwise.train("photos", out="run", model=network)
    assert calls.pop()[3]["model"] is network
    with pytest.raises(InputError, match="unknown key 'optimiser'"):
        pixelwise.train("photos", out="run", settings={"optimiser": 1})


def test_a_network_is_trained_scored_and_used(
    tmp_path: Path, scenes: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = pixelwise.train(
        str(scenes),
        out=str(tmp_path / "run"),
        backbone="tiny",
        weights="none",
        epochs=1,
        batch_size=2,
        device="cpu",
    )
    evaluation = pixelwise.evaluate(run.best, str(scenes))
    assert run.evaluation is not None
    assert evaluation.scores.mean_iou == run.evaluation.scores.mean_iou
    assert evaluation.details is not None
    assert repr(evaluation).startswith("Evaluation(2 images, Scores(pixel_accuracy=")
    assert "\n" not in repr(evaluation)
    data = pixelwise.open_dataset(str(scenes))
    assert data.classes == SCENE_CLASSES
    predictor = pixelwise.load(str(run.best), device="cpu")
    again = pixelwise.evaluate(predictor, data, details=False)
    assert again.scores.mean_iou == evaluation.scores.mean_iou
    with pytest.raises(InputError, match="has no split 'exam': it has train, val"):
        pixelwise.evaluate(predictor, data, split="exam")
    others = dataclasses.replace(data, classes=Classes.make(["cat", "dog"]))
    with pytest.raises(InputError, match="its classes are cat, dog, the network's are "):
        pixelwise.evaluate(predictor, others)
    out = tmp_path / "masks"
    for _ in range(2):  # a finished folder is predicted again
        result = pixelwise.predict_folder(predictor, str(scenes / "images" / "val"), out)
        assert (result.written, result.kept, result.faults) == (2, 0, ())
    assert len([*out.iterdir()]) == 4
    assert capfd.readouterr() == ("", "")


def test_examine_takes_text_paths(tmp_path: Path, make_folder_data: MakeData) -> None:
    diagnosis = pixelwise.examine(str(make_folder_data(tmp_path / "data")))
    assert diagnosis.trains


def test_export_refuses_int8_without_data(tiny_bundle: Path) -> None:
    with pytest.raises(InputError, match="int8: needs images and masks"):
        pixelwise.export(tiny_bundle, int8=True, quiet=True)


def test_api_functions_are_those_of_the_module() -> None:
    for name in FUNCTIONS:
        if hasattr(api, name):
            assert getattr(pixelwise, name) is getattr(api, name)
