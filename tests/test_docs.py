"""The documentation: every command and code block of README and docs/ runs.

The blocks of a page run in order, in a folder of the page's own that holds what the pages assume:

    photos/             a small dataset of generated scenes, with train, val and test
    new_photos/         its test images, without masks
    runs/photos/        a run on it, trained once for all pages
    photo.jpg, video.mp4, orthophoto.tif
    flight/             two georeferenced rasters with polygons, and data.toml of rasters.md

So that this takes little time, `small` changes the arguments of the commands that train, search or
measure, and `small_train` those of `pixelwise.train`: one epoch, the tiny backbone with random
weights, and `--overwrite`, since the run may exist. The README runs with the default network
instead if its ImageNet weights are installed. Nothing else is changed.

NOT_RUN lists the commands that do not run, each with the reason. SLOW lists those that only run in
the slow test.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import pixelwise
from pixelwise.data.scenes import write_scenes
from pixelwise.errors import InputError
from raster_files import write_flight

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
NOTEBOOK = ROOT / "docs/notebooks/from_folder_to_export.ipynb"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
RUN = {"sh", "console", "python"}
SHOWN = {"text", "toml", "bash", "yaml"}  # test_distributed.py runs those of distributed.md

NOT_RUN = {
    r"pip install ": "changes the environment; the extras it names are checked below",
    r"make ": "its targets are checked below",
    r"pixelwise data get voc2012": "downloads 1.86 GiB; test_published.py serves small archives",
    r"pixelwise train voc2012": "needs that download",
    r"pixelwise weights get ": "downloads 160 MiB; test_weights.py serves small files",
    r"pixelwise predict deeplab_v3_resnet50": "needs those weights; see test_weights.py",
    r"pixelwise train .*resnet50_imagenet_v2": "downloads 98 MiB; see test_weights.py",
    r"pixelwise train .*timm/convnext_tiny": "downloads 109 MiB; see test_timm.py",
    r"pixelwise train .*--devices 4": "needs four GPUs; see test_distributed.py",
    r"pixelwise train --resume runs/photos --devices 2": "needs the run of four GPUs",
    r"MASTER_ADDR=.* pixelwise train .*--nodes 2": "needs two machines; see test_distributed.py",
    r"torchrun ": "test_distributed.py runs it",
    r"pixelwise convert \S+\.(caffemodel|pth|tar\.gz) ": (
        "needs published weights; test_convert.py, test_convert_deeplab.py and "
        "test_deeplab_weights.py make such files"
    ),
    r"pixelwise train corrections": (
        "the network of this test predicts a single class, which cannot be trained on; "
        "test_annotation_writing.py trains on every format"
    ),
    r"pixelwise predict .*--cluster": "needs a Ray cluster; see test_cluster.py",
    r"pixelwise train s3://": "needs an object store; see test_object_store.py",
    r"pixelwise export .*--int8": ("takes minutes; see test_export.py"),
    r"pixelwise export .*--to tflite": "needs litert-torch; see test_tflite.py",
    r"(PIXELWISE_LITERT_PYTHON=|python -m venv litert|litert/bin/pip )": "installs litert-torch",
    r"pixelwise train .*--patience": "needs six val images; see test_ending.py",
    r"pixelwise finish": "needs an active run; see test_ending.py",
    r"(cmake|build/segment) ": "compiles a program; see test_cpp_example.py",
    r"(trtexec|polygraphy) ": "needs an NVIDIA GPU; the page says that it is untested",
}
SLOW = (
    r"pixelwise benchmark ",
    r"pixelwise sweep ",
    r"pixelwise cross-validate ",
    r"pixelwise label-errors .*--folds",
    r"pixelwise train .*runs/sweep/best.toml",
    r"pixelwise train .*--devices 2",
    r"python examples/",
)

TINY = ["--set", "model.options.backbone=tiny", "--set", "model.weights=none"]


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; `line` is that of its first line of code."""

    page: Path
    line: int
    language: str
    code: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def read_blocks(page: Path) -> Iterator[Block]:
    lines = page.read_text("utf-8").splitlines()
    start, language = 0, ""
    for number, line in enumerate(lines, start=1):
        if not line.startswith("```"):
            continue
        if not start:
            start, language = number + 1, line.removeprefix("```").strip()
            continue
        yield Block(page, start, language, "\n".join(lines[start - 1 : number - 1]))
        start = 0
    assert not start, f"{page}: the block at line {start} does not end"


def read_commands(block: Block) -> list[str]:
    """The commands of a shell block, without prompts and comments."""
    joined = block.code.replace("\\\n", " ")
    prompt = "$ " if block.language == "console" else ""
    lines = [line for line in joined.splitlines() if line.startswith(prompt)]
    commands = [line.removeprefix(prompt).strip() for line in lines]
    return [command for command in commands if command and not command.startswith("#")]


def page_commands(page: Path) -> list[str]:
    blocks = [block for block in read_blocks(page) if block.language in {"sh", "console"}]
    return [command for block in blocks for command in read_commands(block)]


def all_commands() -> list[str]:
    return [command for page in PAGES for command in page_commands(page)]


def is_slow(command: str) -> bool:
    return any(re.match(pattern, command) for pattern in SLOW)


def is_not_run(command: str) -> bool:
    return any(re.match(pattern, command) for pattern in NOT_RUN)


def has_imagenet_weights() -> bool:
    try:
        from pixelwise.weights.published.fetch import find_imagenet_weights

        find_imagenet_weights("mobilenet_v2")
    except InputError:
        return False
    return True


def without(words: list[str], *flags: str) -> list[str]:
    """`words` without the flags and their values."""
    dropped = {i + k for i, word in enumerate(words) if word in flags for k in (0, 1)}
    return [word for i, word in enumerate(words) if i not in dropped]


def small(words: list[str], *, tiny: bool) -> list[str]:
    """Change the arguments of a command so that it takes little time."""
    command = words[0]
    if command == "train" and "--resume" not in words:
        epochs = [] if "--minutes" in words else ["--epochs", "1"]
        words = [*words, *epochs, "--overwrite"]
        if tiny:
            words = without(words, "--backbone")
            words += TINY[:2] if "--weights" in words else TINY
    elif command == "sweep":
        words = [
            *without(words, "--backbone", "--trials"),
            "--trials",
            "1",
            "--set",
            "epochs=1",
            *TINY,
        ]
    elif command == "learning-curve":
        words = [*words, "--fractions", "0.4,0.7,1", "--seeds", "1", "--steps", "2", *TINY]
    elif command in ("cross-validate", "label-errors") and "--run" not in words:
        words = [*without(words, "--folds"), "--folds", "2", "--epochs", "1", *TINY]
    elif command == "benchmark":
        words = [*without(words, "--size"), "--size", "48x64", "--rounds", "1", "--seconds", "0"]
    return words


def small_train(train: Callable[..., Any], *, tiny: bool) -> Callable[..., Any]:
    """`pixelwise.train`, changed in the same way."""

    def changed(data: object, **arguments: Any) -> Any:
        if tiny and not hasattr(arguments.get("model"), "forward"):
            arguments = {"weights": "none", **arguments, "backbone": "tiny"}
        return train(data, **{**arguments, "epochs": 1, "overwrite": True})

    return changed


@pytest.fixture(scope="session")
def example_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages assume. Not to be changed: each page gets a copy."""
    folder = tmp_path_factory.mktemp("docs")
    write_scenes(folder / "photos", train=6, val=2, test=2, height=48, width=64)
    scene = Image.open(folder / "photos/images/test/scene_0000.png").convert("RGB")
    shutil.copytree(folder / "photos/images/test", folder / "new_photos")
    scene.save(folder / "photo.jpg")
    scene.resize((128, 96)).save(folder / "orthophoto.tif")
    write_video(folder / "video.mp4", scene)
    write_flight(folder / "flight")
    blocks = (block.code for block in read_blocks(ROOT / "docs/rasters.md"))
    (folder / "flight/data.toml").write_text(next(blocks))
    run_command("train photos --out runs/photos", folder, tiny=True)
    return folder


def write_video(path: Path, image: Image.Image, *, frames: int = 3) -> None:
    import av

    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = image.width, image.height, "yuv420p"
        for _ in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode())


@pytest.fixture
def page_folder(
    example_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Path], Path]:
    """Prepares the folder of a page and makes it the current one."""

    def prepare(page: Path) -> Path:
        folder = tmp_path / page.stem
        shutil.copytree(example_folder, folder)
        monkeypatch.chdir(folder)
        return folder

    return prepare


def run_command(command: str, folder: Path, *, tiny: bool) -> str:
    """Run a `pixelwise` command in this process, which saves imports. Returns what it prints."""
    from pixelwise.cli import main

    words = small(shlex.split(command), tiny=tiny)
    before, argv = Path.cwd(), sys.argv
    out, err = io.StringIO(), io.StringIO()
    os.chdir(folder)
    sys.argv = ["pixelwise", *words]
    code: object = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as ended:
        code = ended.code
    finally:
        os.chdir(before)
        sys.argv = argv
    assert not code, f"pixelwise {shlex.join(words)}\n{out.getvalue()}{err.getvalue()}"
    return out.getvalue()


def run_process(words: list[str], folder: Path) -> None:
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}{done.stderr}"


@contextlib.contextmanager
def running_server(words: list[str], folder: Path, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run `pixelwise serve` on a free port, which clients of port 8000 are given instead."""
    pytest.importorskip("uvicorn", reason="uvicorn is not installed (extra `serve`)")
    command = [sys.executable, "-m", "pixelwise", *words, "--port", "0"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True
        )
    assert process.stdout is not None
    with process.stdout as stream:
        line = stream.readline()
        assert " at http" in line, (folder / "log").read_text()
        url = line.split(" at ")[1].split()[0]
        real = pixelwise.Client
        patch.setattr(pixelwise, "Client", lambda _, **options: real(url, **options))
        try:
            yield
        finally:
            process.terminate()
            assert process.wait(60) == 0


def run_shell(
    block: Block,
    folder: Path,
    servers: contextlib.ExitStack,
    patch: pytest.MonkeyPatch,
    *,
    slow: bool,
    tiny: bool,
) -> None:
    for command in read_commands(block):
        if command.startswith("pixelwise serve"):
            servers.enter_context(running_server(shlex.split(command)[1:], folder, patch))
            continue
        if is_not_run(command) or (is_slow(command) and not slow):
            continue
        program, _, rest = command.partition(" ")
        if program == "python":
            script, *arguments = shlex.split(rest)
            run_process([sys.executable, str(ROOT / script), *arguments], folder)
            continue
        assert program == "pixelwise", f"{block.place}: {command}: cannot be run by this test"
        rest, _, file = rest.partition(" > ")
        if "--devices" in rest:
            words = small(shlex.split(rest), tiny=tiny)
            run_process([sys.executable, "-m", "pixelwise", *words], folder)
            continue
        printed = run_command(rest, folder, tiny=tiny)
        if file:
            (folder / file.strip()).write_text(printed)


def run_page(
    page: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    slow: bool,
    tiny: bool = True,
    languages: Collection[str] = RUN,
) -> None:
    # The test process keeps its own memory allocator.
    monkeypatch.setattr("pixelwise.process_settings.tune_allocator", lambda: None)
    monkeypatch.setattr(pixelwise, "train", small_train(pixelwise.train, tiny=tiny))
    names: dict[str, Any] = {"__name__": "__main__"}
    with contextlib.ExitStack() as servers:
        for block in read_blocks(page):
            if block.language not in languages:
                continue
            if block.language == "python":
                exec(compile(block.code, block.place, "exec"), names)
            elif block.language in RUN:
                run_shell(block, folder, servers, monkeypatch, slow=slow, tiny=tiny)


def page_name(page: Path) -> str:
    return page.stem


RUNNABLE = [page for page in PAGES[1:] if any(block.language in RUN for block in read_blocks(page))]


@pytest.mark.parametrize("page", RUNNABLE, ids=page_name)
def test_the_blocks_of_a_page_run(
    page: Path, page_folder: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_page(page, page_folder(page), monkeypatch, slow=False)


@pytest.mark.parametrize("tiny", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_readme_leads_to_masks_a_report_and_an_export(
    tiny: bool, page_folder: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not tiny and not has_imagenet_weights():
        pytest.skip("the default network starts from the ImageNet weights of MobileNetV2")
    folder = page_folder(README)
    # Each step is there for the command line and for Python; both ways use the same run.
    for language in ("python", "sh"):
        shutil.rmtree(folder / "runs")
        run_page(README, folder, monkeypatch, slow=False, tiny=tiny, languages={language})
        assert list((folder / "runs/photos").glob("*openvino*"))
    assert (folder / "runs/photos/report.html").exists()
    assert len(list((folder / "predictions").glob("*_overlay.png"))) == 2


SLOW_PAGES = [page for page in RUNNABLE if any(map(is_slow, page_commands(page)))]


@pytest.mark.slow
@pytest.mark.parametrize("page", SLOW_PAGES, ids=page_name)
def test_all_blocks_of_a_page_run(
    page: Path, page_folder: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    if page.stem == "networks" and not has_imagenet_weights():
        pytest.skip("its examples need the ImageNet weights of MobileNetV2")
    run_page(page, page_folder(page), monkeypatch, slow=True)


def test_every_block_is_run_or_says_what_it_is() -> None:
    for page in PAGES:
        for block in read_blocks(page):
            if block.language.startswith("{"):  # a directive of MyST
                continue
            assert block.language in RUN | SHOWN, f"{block.place}: language {block.language!r}"
            if block.language == "python":
                assert ast.parse(block.code).body, block.place
            elif block.language in RUN:
                assert read_commands(block), f"{block.place}: holds no command"


@pytest.mark.parametrize("pattern", [*NOT_RUN, *SLOW])
def test_every_exception_is_needed(pattern: str) -> None:
    assert any(re.match(pattern, command) for command in all_commands())


def test_the_readme_shows_the_first_steps_in_order() -> None:
    blocks = [block for block in read_blocks(README) if block.language == "sh"]
    commands = [c for block in blocks for c in read_commands(block) if c.startswith("pixelwise ")]
    steps = [shlex.split(command)[1] for command in commands]
    assert steps == ["doctor", "train", "evaluate", "predict", "export"]
    assert any(block.language == "python" for block in read_blocks(README))


def test_the_readme_is_short() -> None:
    assert len(README.read_text("utf-8").splitlines()) <= 150


def test_the_pages_name_make_targets_that_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    commands = all_commands()
    assert "make demo" in commands
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    named = {words.split()[1] for words in commands if words.startswith("make ")}
    named |= set(re.findall(r"`make ([a-z-]+)`", text))
    assert {"demo", "test", "docs"} <= named
    for target in named:
        assert re.search(rf"^{target}:", makefile, flags=re.M), target


def test_the_extras_that_are_named_exist_and_all_are_documented() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = set(project["optional-dependencies"])
    installed = [c for c in all_commands() if c.startswith("pip install ")]
    named = {
        extra
        for command in installed
        for group in re.findall(r"\.\[([a-z0-9,]+)\]", command)
        for extra in group.split(",")
    }
    assert named
    assert named <= extras
    table = (ROOT / "docs/installation.md").read_text("utf-8")
    documented = {
        name
        for row in re.findall(r"^\| (`[^|]*) \|", table, flags=re.M)
        for name in re.findall(r"`([a-z0-9]+)`", row)
    }
    assert documented == extras - {"docs"}


def test_the_names_of_settings_exist() -> None:
    import inspect

    from typer.main import get_command

    from pixelwise.cli import app
    from pixelwise.recipes.schema import Recipe

    commands: Any = get_command(app)
    flags = {
        name
        for one in commands.commands.values()
        for p in getattr(one, "params", ())
        for name in p.opts
    }
    functions = (
        pixelwise.load, pixelwise.train, pixelwise.evaluate, pixelwise.export,
        pixelwise.predict_folder, pixelwise.create_model,
    )  # fmt: skip
    arguments = {name for each in functions for name in inspect.signature(each).parameters}
    keys = {re.sub(r"^model\.options$", "model.options.*", key) for key in Recipe().flat()}
    for row in (ROOT / "docs/naming.md").read_text("utf-8").splitlines():
        if not row.startswith("| ") or "`" not in row:
            continue
        _, _, flag, key, argument, _ = row.split("|")
        for name in re.findall(r"`(--[a-z0-9-]+)", flag):
            assert name in flags, row
        for name in re.findall(r"`([a-z_.]+)`", key):
            assert name in keys or name.startswith("model.options."), row
        for name in re.findall(r"`([a-z0-9_]+)=", argument):
            assert name in arguments | {"backbone", "output_stride"}, row


def test_the_losses_and_layouts_are_documented() -> None:
    from pixelwise.data.layouts import LAYOUTS
    from pixelwise.recipes.loss_terms import LOSS_NAMES

    losses = (ROOT / "docs/training.md").read_text("utf-8").partition("\n## Losses\n")[2]
    losses = losses.partition("\n## ")[0]
    for name in LOSS_NAMES:
        assert f"`{name}`" in losses, name
    formats = (ROOT / "docs/data-formats.md").read_text("utf-8").casefold()
    for layout in LAYOUTS:
        name = layout.DESCRIPTION.partition(":")[0].casefold().split()[0]
        assert re.search(rf"\b{name}\b", formats), name


def test_the_contributing_page_names_the_kinds_of_faults() -> None:
    from pixelwise.doctor.checks import folder

    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    for kind in folder._LAYOUT_KINDS:
        assert f"`{kind}`" in text, kind


def test_each_generated_part_has_a_note_for_readers_of_the_source() -> None:
    for page in PAGES:
        text = page.read_text("utf-8")
        for part in re.split(r"^<!-- generated: .* -->$", text, flags=re.M)[1:]:
            note = part.partition("<!-- end -->")[0].strip()
            assert re.fullmatch(r"\*.*`.*`.*\*", note, flags=re.S), f"{page}: {note}"
            assert len(note.splitlines()) <= 2, f"{page}: {note}"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_to_files_of_the_repository_work(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (ROOT / target).exists(), target


def test_the_notebook_is_committed_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    source = str(Path(pixelwise.__file__).parent.parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([source, os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    shown = [
        output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", ())
    ]
    assert any("<img" in str(data.get("text/html", "")) for data in shown)
    assert list((tmp_path / "runs/photos").glob("*openvino*"))


@pytest.mark.slow
def test_the_site_builds_without_warnings(tmp_path: Path) -> None:
    for package in ("sphinx", "myst_nb", "furo", "sphinx_copybutton"):
        pytest.importorskip(package)
    words = ["sphinx", "-q", "-W", "--keep-going", "-b", "html", str(ROOT / "docs"), str(tmp_path)]
    run_process([sys.executable, "-m", *words], ROOT)
    for page in PAGES[1:]:
        assert (tmp_path / f"{page.stem}.html").exists()


def test_the_ablation_page_shows_the_recorded_results() -> None:
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("ablation_table", ROOT / "benchmarks/ablation_table.py")
    assert spec is not None
    assert spec.loader is not None
    table = module_from_spec(spec)
    spec.loader.exec_module(table)
    page = table.PAGE.read_text("utf-8")
    assert page == table.render(page, table.load_results())
    for result in table.load_results():
        last = result["last"]
        epoch = f"{last['epoch']} of {result['epochs']}"
        assert f"| {result['name']} | {epoch} | {100 * last['mean_iou']:.1f} |" in page
