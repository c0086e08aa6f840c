"""A run that is ended early: by its patience, on request, or by the answer to Ctrl-C; its page."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pixelwise
from pixelwise.data.scenes import write_scenes
from pixelwise.errors import InputError
from pixelwise.evaluation import Evaluation, ImageCounts, evaluate
from pixelwise.evaluation.confusion import ConfusionMatrix
from pixelwise.evaluation.examples import Example
from pixelwise.inference import Predictor
from pixelwise.interrupts import Answer
from pixelwise.recipes.schema import Recipe
from pixelwise.report import write_run_report
from pixelwise.training import Callback, TrainingStoppedError, resume, train, trainer
from pixelwise.training.ending import improves, write_request
from pixelwise.training.run_folder import Run
from test_resume import StopAt, assert_same_bundles
from test_resume import recipe as with_checkpoints


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"), train=4, val=9, height=32, width=48)


def recipe(**overrides: Any) -> Recipe:
    return with_checkpoints(checkpoint_minutes=100, **overrides)


def counts(correct: int, *, images: int = 12, spread: int = 0) -> ImageCounts:
    """Two classes of 100 pixels in each image. `correct` pixels of each are right, give or take."""
    rows = []
    for index in range(images):
        right = correct + (spread if index % 2 else -spread)
        rows.append([[right, right], [100, 100], [100, 100]])
    return ImageCounts(tuple(f"{i}.png" for i in range(images)), np.array(rows, np.int64))


def evaluation(image_counts: ImageCounts) -> Evaluation:
    matrix = ConfusionMatrix(2)
    right, total, _ = image_counts.counts.sum(axis=0)
    matrix.counts += np.diag(right) + np.fliplr(np.diag(total - right))
    return Evaluation(matrix, image_counts)


def test_an_improvement_must_exceed_the_paired_interval() -> None:
    assert improves(None, counts(50))
    assert improves(counts(50), counts(52))
    assert not improves(counts(50), counts(50))
    assert not improves(counts(52), counts(50))
    assert not improves(counts(50), counts(52, spread=20))  # by chance, in half of the images
    assert not improves(counts(50, images=5), counts(90, images=5))


@pytest.mark.parametrize(
    ("validations", "patience", "epochs"),
    [
        ([50, 50, 50, 50, 50, 50], 2, 3),
        ([50, 60, 60, 60, 60, 60], 2, 4),
        ([50, 50, 60, 60, 60, 60], 2, 5),  # the second in a row improves
        ([50, 40, 45, 48, 60, 60], 3, 4),  # better than the last one, not than the best
        ([50, 51, 52, 53, 54, 55], 2, 6),  # slowly, all the time
        ([50, 50, 50, 50, 50, 50], 0, 6),
        ([50, 50, 50, 50, 50, 50], 5, 6),  # the last epoch is no early end
    ],
)
def test_patience_ends_a_run_that_does_not_improve(
    validations: list[int],
    patience: int,
    epochs: int,
    scenes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    results = iter(validations)
    monkeypatch.setattr(trainer.Trainer, "validate", lambda self: evaluation(counts(next(results))))
    monkeypatch.setattr(Run, "bundle", lambda *_, **__: _NoBundle())
    run = train(scenes, tmp_path / "run", recipe(epochs=6, patience=patience))
    assert len(run.history) == epochs
    assert bool(run.ended_early) == (epochs < 6)
    if epochs < 6:
        since = epochs - patience
        assert run.ended_early == (
            f"after epoch {epochs} of 6: none of the last {patience} validations improved on epoch "
            f"{since} by more than the paired interval"
        )


class _NoBundle:
    def save(self, path: Path) -> None:
        path.write_bytes(b"")


@pytest.fixture(scope="module")
def patient(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that learns nothing and ends after epoch 3 of 5."""
    return train(scenes, tmp_path_factory.mktemp("patient") / "run", stuck())


def stuck() -> Recipe:
    """A recipe that learns nothing."""
    rates = {"optimizer.name": "sgd", "optimizer.learning_rate": 1e-12}
    return recipe(epochs=5, patience=2, **rates)


def test_reports_say_that_a_run_was_ended_early(patient: Run) -> None:
    assert len(patient.history) == 3
    assert "3 of 5 epochs, ended early" in repr(patient)
    last = json.loads((patient.folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert last == {"event": "end", "best_epoch": 1, "ended_early": patient.ended_early}
    page = write_run_report(patient, command="pixelwise train").read_text("utf-8")
    assert f'<p class="status">The run was ended early, {patient.ended_early}.</p>' in page
    assert "<dt>ended early</dt>" in page
    assert "<dt>best epoch</dt><dd>1 of 3, by validation mIoU</dd>" in page


@pytest.mark.parametrize("position", [("step", 2, 1), ("epoch", 2), ("validating", 3, 1)])
def test_a_resumed_run_keeps_its_patience(
    position: tuple[Any, ...], patient: Run, scenes: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.raises(TrainingStoppedError):
        train(scenes, out, stuck(), callback=StopAt(*position))
    run = resume(out)
    assert (len(run.history), run.ended_early) == (3, patient.ended_early)
    assert_same_bundles(out, patient.folder)
    before = (out / "last.safetensors").read_bytes()
    again = resume(out)
    assert again.ended_early == patient.ended_early
    assert again.facts["resumed"] == f"the run has ended: {patient.ended_early}"
    assert (out / "last.safetensors").read_bytes() == before


def test_patience_needs_enough_val_images(tmp_path: Path, cli: Any) -> None:
    data = write_scenes(tmp_path / "few", train=2, val=5, height=32, width=48)
    done = cli("train", data, "--out", "run", "--patience", 3)
    assert done.code == 2
    assert done.err == (
        "pixelwise: error: patience = 3: no improvement on 5 val images can exceed the paired "
        "interval: use at least 6, or patience = 0\n"
    )
    assert not (tmp_path / "run").exists()


class At(Callback):
    """Call a function with the run's folder after a step."""

    def __init__(self, epoch: int, step: int, act: Callable[[Path], object]) -> None:
        self.position, self.act = (epoch, step), act

    def on_start(self, run: Run) -> None:
        self.folder = run.folder

    def on_step(self, *, epoch: int, step: int, steps: int, loss: float, images: int) -> None:
        if (epoch, step) == self.position:
            self.act(self.folder)


def test_finish_ends_the_run_after_its_epoch(scenes: Path, tmp_path: Path, cli: Any) -> None:
    results = []
    callback = At(2, 1, lambda folder: results.append(cli("finish", folder)))
    run = train(scenes, tmp_path / "run", recipe(epochs=4), callback=callback)
    assert (results[0].code, results[0].out) == (0, f"{run.folder}: ends after epoch 2\n")
    assert run.ended_early == "after epoch 2 of 4, on request"
    assert [row["epoch"] for row in run.history] == [1, 2]
    assert Predictor.load(run.best).classes == run.data.classes
    assert not (run.folder / "finish.json").exists()
    shorter = train(scenes, tmp_path / "same", recipe(epochs=4), callback=StopAtEnd(2))
    assert_same_bundles(run.folder, shorter.folder)


class StopAtEnd(Callback):
    """End a run with `pixelwise.finish` while an epoch is reported."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_start(self, run: Run) -> None:
        self.folder = run.folder

    def on_epoch_end(self, row: Any) -> None:
        if row["epoch"] == self.epoch:
            pixelwise.finish(self.folder)


def test_finish_refuses_what_does_not_train(
    patient: Run, scenes: Path, tmp_path: Path, cli: Any
) -> None:
    stopped = tmp_path / "stopped"
    with pytest.raises(TrainingStoppedError):
        train(scenes, stopped, recipe(), callback=StopAt("step", 1, 1))
    for folder, message in (
        (patient.folder, f"has ended already: use {patient.best}"),
        (stopped, f"no process trains there, .*`pixelwise train --resume {stopped}` continues"),
        (scenes, "holds no run that has begun: give the folder of a run"),
        (tmp_path / "missing", "holds no run that has begun"),
    ):
        with pytest.raises(InputError, match=message):
            pixelwise.finish(folder)
        done = cli("finish", folder)
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert not (folder / "finish.json").exists()


def test_a_file_of_somebody_else_is_no_request(scenes: Path, tmp_path: Path) -> None:
    def act(folder: Path) -> None:
        (folder / "finish.json").write_text("{}")
        with pytest.raises(InputError, match=r"finish\.json: exists and was not written by this"):
            pixelwise.finish(folder)

    run = train(scenes, tmp_path / "run", recipe(epochs=2), callback=At(1, 1, act))
    assert run.ended_early == ""
    assert (run.folder / "finish.json").read_text() == "{}"


def test_a_request_outlives_a_run_that_is_stopped(scenes: Path, tmp_path: Path) -> None:
    def act(folder: Path) -> None:
        write_request(folder)
        os.kill(os.getpid(), signal.SIGTERM)

    out = tmp_path / "run"
    with pytest.raises(TrainingStoppedError):
        train(scenes, out, recipe(), callback=At(1, 1, act))
    assert resume(out).ended_early == "after epoch 1 of 3, on request"
    write_request(out)  # too late
    assert train(scenes, out, recipe(), overwrite=True).ended_early == ""


class Answering(StopAt):
    """Press Ctrl-C at a position and answer the question."""

    def __init__(self, *position: Any, answer: Answer | None) -> None:
        super().__init__(*position, number=signal.SIGINT)
        self.answer = answer
        self.questions = 0

    def on_interrupt(self) -> Answer | None:
        self.questions += 1
        return self.answer


@pytest.mark.parametrize(
    "position",
    [
        ("step", 2, 1),
        pytest.param(("validating", 2, 1), marks=pytest.mark.slow),
        pytest.param(("epoch", 2), marks=pytest.mark.slow),
    ],
)
def test_ctrl_c_does_what_is_answered(position: Any, scenes: Path, tmp_path: Path) -> None:
    continued = Answering(*position, answer="continue")
    whole = train(scenes, tmp_path / "whole", recipe(), callback=continued)
    assert (len(whole.history), whole.ended_early, continued.questions) == (3, "", 1)
    finished = Answering(*position, answer="finish")
    run = train(scenes, tmp_path / "finished", recipe(epochs=4), callback=finished)
    last = 3 if position[0] == "epoch" else 2  # then epoch 3 has begun
    assert run.ended_early == f"after epoch {last} of 4, on request"
    for answer in ("stop", None):
        out = tmp_path / f"stopped-{answer}"
        with pytest.raises(TrainingStoppedError) as error:
            train(scenes, out, recipe(), callback=Answering(*position, answer=answer))
        assert error.value.exit_code == 130
        assert_same_bundles(resume(out).folder, whole.folder)


def test_sigterm_asks_nothing(scenes: Path, tmp_path: Path) -> None:
    callback = Answering("step", 1, 1, answer="continue")
    callback.number = signal.SIGTERM
    with pytest.raises(TrainingStoppedError) as error:
        train(scenes, tmp_path / "run", recipe(), callback=callback)
    assert (error.value.exit_code, callback.questions) == (143, 0)


class Events(Callback):
    """Collects the events of a run, and the examples of each epoch."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.examples: list[Sequence[Example]] = []
        self.ended: list[str] = []

    def on_start(self, run: Run) -> None:
        self.names.append(f"start {len(run.history)} of {run.recipe.epochs}")

    def on_step(self, *, epoch: int, step: int, steps: int, loss: float, images: int) -> None:
        self.names.append(f"step {epoch}.{step}")

    def on_examples(self, epoch: int, examples: Sequence[Example]) -> None:
        self.names.append(f"examples {epoch}")
        self.examples.append(examples)

    def on_epoch_end(self, row: Any) -> None:
        self.names.append(f"epoch {row['epoch']}")

    def on_stop(self, reason: str) -> None:
        self.names.append(reason.partition(";")[0])

    def on_end(self, ended_early: str) -> None:
        self.names.append("end")
        self.ended.append(ended_early)


def test_callbacks_receive_the_events_and_the_same_six_images(scenes: Path, tmp_path: Path) -> None:
    events, stop = Events(), StopAt("step", 2, 1)

    class Both(Events):
        def on_step(self, *, epoch: int, step: int, **more: Any) -> None:
            events.on_step(epoch=epoch, step=step, **more)
            stop.on_step(epoch=epoch, step=step, **more)

    both = Both()
    both.names = events.names
    with pytest.raises(TrainingStoppedError):
        train(scenes, tmp_path / "run", recipe(epochs=2), callback=both)
    assert events.names == [
        *("start 0 of 2", "step 1.1", "step 1.2", "examples 1", "epoch 1", "step 2.1"),
        "stopped in epoch 2 after step 1",
    ]
    after = Events()
    run = resume(tmp_path / "run", callback=after)
    assert after.names == ["start 1 of 2", "step 2.2", "examples 2", "epoch 2", "end"]
    assert after.ended == [""]
    (first,), (second,) = both.examples, after.examples
    assert [e.name for e in first] == [e.name for e in second]
    names = [sample.name for sample in run.data.splits["val"]]
    assert [e.name for e in second] == [names[i] for i in (0, 2, 3, 5, 6, 8)]
    predictor = Predictor.load(run.last)
    scored = evaluate(predictor, run.data, "val").image_counts.mean_iou
    by_name = {sample.name: sample for sample in run.data.splits["val"]}
    for example in second:
        image, truth = run.data.read(by_name[example.name])
        np.testing.assert_array_equal(example.image, image)
        np.testing.assert_array_equal(example.truth, truth)
        np.testing.assert_array_equal(example.predicted, predictor.predict_labels(image))
        assert example.score == scored[example.name]


RELOAD = '<meta http-equiv="refresh"'


def test_the_page_of_a_run_reloads_itself_until_it_ends(scenes: Path, tmp_path: Path) -> None:
    out, pages = tmp_path / "run", dict[str, str]()

    class Reading(Callback):
        def on_step(self, *, epoch: int, step: int, **_: Any) -> None:
            pages[f"{epoch}.{step}"] = (out / "report.html").read_text("utf-8")
            if (epoch, step) == (3, 1):
                os.kill(os.getpid(), signal.SIGTERM)

    settings = recipe(epochs=3).flat()
    with pytest.raises(pixelwise.PixelwiseError):
        pixelwise.train(scenes, out=out, settings=settings, callback=Reading(), quiet=True)
    assert RELOAD in pages["1.1"]
    assert "Training: 0 of 3 epochs are done." in pages["1.1"]
    assert "Validation images" not in pages["1.1"]
    assert "Validation images after epoch 1" in pages["2.1"]
    assert pages["3.1"].count('class="example"') == 6
    assert "Training: 2 of 3 epochs are done, about" in pages["3.1"]
    stopped = (out / "report.html").read_text("utf-8")
    assert RELOAD not in stopped
    assert f"resume with pixelwise train --resume {out}." in stopped
    pixelwise.resume(out, quiet=True)
    ended = (out / "report.html").read_text("utf-8")
    assert RELOAD not in ended
    assert "The run has ended." in ended


def test_a_page_of_somebody_else_is_not_replaced(scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"

    class Intruding(Callback):
        def on_plan(self, facts: Any, *, epochs: int) -> None:
            (out / "report.html").write_text("mine")

    with pytest.raises(InputError, match=r"report\.html: exists and was not written"):
        pixelwise.train(scenes, out=out, settings=recipe().flat(), callback=Intruding(), quiet=True)
    assert (out / "report.html").read_text() == "mine"


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
@pytest.mark.parametrize(
    ("keys", "answer"),
    [
        (b"f\n", "finish"),
        (b"C\n", "continue"),
        (b"s\n", "stop"),
        (b"\n", "stop"),
        (b"what?\nf\n", "finish"),
        (b"\x03", "stop"),  # Ctrl-C
        (b"\x04", "stop"),  # end of input
        (None, "stop"),  # a background process must not read from the terminal
    ],
)
def test_the_question_on_a_terminal(keys: bytes | None, answer: str) -> None:
    code = "from pixelwise.interrupts import ask_after_interrupt as a; print('answer', a())"
    command = [sys.executable, "-c", code]
    if keys is None:
        start = f"import subprocess; subprocess.run({command}, process_group=0)"
        command = [sys.executable, "-c", start]
    output = on_terminal(command, b"[s] ", keys or b"")
    assert f"answer {answer}" in output
    assert ("[f]inish" in output) == (keys is not None)


def on_terminal(command: list[str], prompt: bytes, keys: bytes, *, first: bytes = b"") -> str:
    """Run a command on a terminal of its own, type keys at a prompt, and return what it prints.

    Ctrl-C is pressed when `first` is printed.
    """
    import pty

    pid, terminal = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored if the tests run in the background
        os.execv(command[0], command)
    output, typed, deadline = b"", False, time.monotonic() + 120
    try:
        while time.monotonic() < deadline and select.select([terminal], [], [], 60)[0]:
            output += os.read(terminal, 4096)
            if first and first in output:
                os.write(terminal, b"\x03")
                first = b""
            if keys and not typed and prompt in output:
                os.write(terminal, keys)
                typed = True
    except OSError:  # the process has closed its terminal
        pass
    _, status = os.waitpid(pid, 0)
    return f"{output.decode()}exit code {os.waitstatus_to_exitcode(status)}"


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
@pytest.mark.parametrize(
    ("key", "code", "text"),
    [
        (b"f\n", 0, "ended early  after epoch"),
        (b"s\n", 130, "everything is saved: resume with"),
        (b"\x03", 130, "everything is saved: resume with"),
    ],
)
def test_ctrl_c_in_a_terminal_asks(
    key: bytes, code: int, text: str, scenes: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    settings = recipe(epochs=500)
    path = tmp_path / "recipe.toml"
    path.write_text(settings.to_toml())
    words = ["train", str(scenes), "--out", str(out), "--recipe", str(path)]
    command = [sys.executable, "-m", "pixelwise", *words]
    output = on_terminal(command, b"[s] ", key, first=b"/500  loss")
    assert output.endswith(f"exit code {code}")
    assert text in output
    page = (out / "report.html").read_text("utf-8")
    assert RELOAD not in page
    assert ("The run was ended early" in page) == (code == 0)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_finish_from_another_process(processes: int, scenes: Path, tmp_path: Path) -> None:
    out, path = tmp_path / "run", tmp_path / "recipe.toml"
    path.write_text(recipe(epochs=500).to_toml())
    words = ["train", str(scenes), "--out", str(out), "--recipe", str(path)]
    command = [sys.executable, "-m", "pixelwise"]
    devices = ["--devices", "2"] if processes == 2 else []
    with subprocess.Popen([*command, *words, *devices], text=True, stdout=subprocess.PIPE) as run:
        try:
            deadline = time.monotonic() + 120
            while not (out / "best.safetensors").exists() and time.monotonic() < deadline:
                time.sleep(0.1)
            page = (out / "report.html").read_text("utf-8")
            done = subprocess.run([*command, "finish", str(out)], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            output, _ = run.communicate(timeout=120)
        finally:
            run.kill()
    assert run.returncode == 0
    assert RELOAD in page
    assert page.count('class="example"') in (0, 6)
    assert "on request" in output
    final = (out / "report.html").read_text("utf-8")
    assert RELOAD not in final
    assert "of 500, on request." in final
